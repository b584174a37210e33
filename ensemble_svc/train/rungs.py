"""Trials that stop at a rung: ranked inside their pack where it holds all of them, else as the journal says.

Only members that still train are ranked, and those that failed for good since the rung before, which are last. A trial
of several seeds is ranked by their mean, and stops with all of them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from ensemble_svc.plan.plan import MemberSpec, Pack, Slot, index_of
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.members import sealed
from ensemble_svc.train.ledger import Entry, Ledger


@dataclass(frozen=True)
class Rungs:
    """How the trials of a pack that holds all of a search are ranked, and by what."""

    ladder: Ladder
    since: int = 0
    """Epoch up to which they have been ranked before."""
    sick: frozenset[int] = frozenset()
    """Trials of which a member diverged in a pack before this one."""

    @classmethod
    def of(cls, search: SearchSpec | None, slot: Slot, run: Path) -> Rungs | None:
        """What the search asks for; None where nothing is stopped here."""
        epochs = max((m.training.epochs for m in slot.pack.members if _is_ranked(m)), default=0)
        ladder = Ladder.of(search, epochs)
        if ladder is None or slot.until is not None:
            return None
        return cls(ladder, slot.since, _sick_before(ladder, run) if slot.since else frozenset())

    def close(self, ledger: Ledger, epoch: int) -> None:
        """Stop the worst trials, where the epoch that has just been closed is a rung."""
        if epoch <= self.since or epoch not in self.ladder.rungs:
            return
        trials, sick = dict[int, list[Entry]](), set(self.sick)
        for member, entry in zip(ledger.members, ledger.entries, strict=True):
            if entry.active and _is_ranked(member):
                trials.setdefault(self.ladder.trial(member.index), []).append(entry)
            elif lost_for_good(member, entry.status):
                sick.add(self.ladder.trial(member.index))
        key = f"val_{self.ladder.metric}"
        values = {t: [entry.history[-1][key] for entry in some] for t, some in trials.items()}
        losses = {t: math.nan if t in sick else self.ladder.loss(some) for t, some in values.items()}
        for trial, reason in self.ladder.stopped(losses, epoch).items():
            for entry in trials[trial]:
                _stop(entry, reason)


def _is_ranked(member: MemberSpec) -> bool:
    return not (member.is_single or member.is_again)


def lost_for_good(member: MemberSpec, status: str) -> bool:
    """Whether a member has diverged and does not start again: its trial is worse than any that is whole."""
    return status == "diverged" and member.training.on_sick != "restart"


def lost_in(journal: Journal) -> frozenset[str]:
    """Ids of the members that failed for good on their way to a rung, and were ranked last there."""
    return frozenset(name for event in journal.of_kind("rung") for name in event.get("lost") or ())


def _sick_before(ladder: Ladder, run: Path) -> frozenset[int]:
    """The trials of which a sealed member was lost, or one that never came to a rung."""
    diverged = (seal["spec"] for seal in sealed(run).values() if seal["status"] == "diverged")
    members = (MemberSpec.from_json(json.dumps(spec)) for spec in diverged)
    lost = (member for member in members if _is_ranked(member) and lost_for_good(member, "diverged"))
    failed = (index_of(name) for name in lost_in(Journal(run / "journal.jsonl")))
    return frozenset(map(ladder.trial, [*(member.index for member in lost), *failed]))


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
