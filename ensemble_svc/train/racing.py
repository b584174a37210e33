"""A trial that a scheduler elsewhere may stop: what it shows, and what it hears in the journal.

The driver writes its verdict down before the trial's report returns, so a trial that was killed anywhere trains
again to the epoch of its verdict and stops there, with the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ensemble_svc.plan.race import VERDICT
from ensemble_svc.spec.schedulers import Asynchronous
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.store.journal import Journal
from ensemble_svc.train.ledger import Ledger


@dataclass(frozen=True)
class Entrant:
    """One pack, which is one trial."""

    scheduler: Asynchronous
    metric: str
    pack: str
    journal: Journal

    @classmethod
    def of(cls, search: SearchSpec | None, pack: str, run: Path) -> Entrant | None:
        """None where nothing is stopped as results come."""
        if search is None or not isinstance(search.scheduler, Asynchronous):
            return None
        return cls(search.scheduler, search.metric, pack, Journal(run / "journal.jsonl"))

    def shows(self, ledger: Ledger) -> float:
        """The trial's objective: the mean of its members' last results; not a number if one diverged."""
        if any(entry.status == "diverged" for entry in ledger.entries):
            return math.nan
        return fmean(entry.history[-1][f"val_{self.metric}"] for entry in ledger.entries)

    def hear(self, ledger: Ledger, epoch: int) -> bool:
        """Stop the trial, where that was the verdict on the epoch it has just shown; whether it was."""
        if not self.scheduler.asks(epoch):
            return False
        told = [v for v in self.journal.of_kind(VERDICT, holding=[self.pack]) if v["epoch"] == epoch]
        active = [entry for entry in ledger.entries if entry.active]
        if not told or not told[-1]["stops"] or not active:
            return False
        for entry in active:
            entry.status = "stopped"
            entry.reason = self.scheduler.reason(epoch)
        return True
