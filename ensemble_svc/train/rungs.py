"""Trials that stop at a rung: ranked inside their pack where it holds all of them, else as the journal says.

Only members that still train are ranked. A trial of several seeds is ranked by their mean, and stops with all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ensemble_svc.plan.plan import Pack, Slot
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.store.journal import Journal
from ensemble_svc.train.ledger import Entry, Ledger


@dataclass(frozen=True)
class Rungs:
    """How the trials of a pack that holds all of a search are ranked, and by what."""

    ladder: Ladder
    since: int = 0
    """Epoch up to which they have been ranked before."""

    @classmethod
    def of(cls, search: SearchSpec | None, slot: Slot) -> Rungs | None:
        """What the search asks for; None where nothing is stopped here."""
        epochs = max((m.training.epochs for m in slot.pack.members if not m.is_single), default=0)
        ladder = Ladder.of(search, epochs)
        return None if ladder is None or slot.until is not None else cls(ladder, slot.since)

    def close(self, ledger: Ledger, epoch: int) -> None:
        """Stop the worst trials, where the epoch that has just been closed is a rung."""
        if epoch <= self.since or epoch not in self.ladder.rungs:
            return
        trials: dict[int, list[Entry]] = {}
        for member, entry in zip(ledger.members, ledger.entries, strict=True):
            if entry.active and not member.is_single:
                trials.setdefault(self.ladder.trial(member.index), []).append(entry)
        key = f"val_{self.ladder.metric}"
        losses = {
            t: self.ladder.loss([entry.history[-1][key] for entry in some]) for t, some in trials.items()
        }
        for trial, reason in self.ladder.stopped(losses, epoch).items():
            for entry in trials[trial]:
                _stop(entry, reason)


def pause(run: Path, pack: Pack, ledger: Ledger, epoch: int, metric: str) -> None:
    """Tell the driver, which ranks them, how the members do that still train at a rung."""
    pairs = zip(ledger.members, ledger.entries, strict=True)
    found = {member.digest: entry.history[-1][f"val_{metric}"] for member, entry in pairs if entry.active}
    if found:
        Journal(run / "journal.jsonl").append("paused", pack=pack.id, epoch=epoch, metric=found)


def recall(run: Path, ledger: Ledger, epoch: int) -> None:
    """Stop the members of which the driver has decided so after this epoch."""
    out: dict[str, str] = {}
    for event in Journal(run / "journal.jsonl").of_kind("rung"):
        if event["epoch"] == epoch:
            out |= event["out"]
    for member, entry in zip(ledger.members, ledger.entries, strict=True):
        if entry.active and member.digest in out:
            _stop(entry, out[member.digest])


def _stop(entry: Entry, reason: str) -> None:
    entry.status, entry.reason = "stopped", reason
