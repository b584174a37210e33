"""Packed successive halving: after some epochs the worst trials of a pack stop, all ranked together.

Only members that still train are ranked. A trial of several seeds is ranked by their mean, and stops with all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from ensemble_svc.optim.plateau import HIGHER_IS_BETTER
from ensemble_svc.spec.schedulers import Halving
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.train.ledger import Entry, Ledger


def ranked_out(losses: Mapping[int, float], factor: int) -> dict[int, int]:
    """The trials that stop, with their rank from 1; one in ``factor`` goes on, and one at least.

    Args:
        losses: by trial, less is better; of equal ones, and of those that are not numbers, the earlier is better.
    """
    order = sorted(losses, key=lambda trial: (math.isnan(losses[trial]), losses[trial], trial))
    keep = max(1, len(order) // factor)
    return {trial: rank for rank, trial in enumerate(order, start=1) if rank > keep}


@dataclass(frozen=True)
class Rungs:
    """When the trials of a pack are ranked, and by what."""

    halving: Halving
    metric: str
    seeds: int
    """Members of a trial."""

    @classmethod
    def of(cls, search: SearchSpec | None) -> Rungs | None:
        """What the search asks for; None where nothing is stopped."""
        if search is None or not isinstance(search.scheduler, Halving):
            return None
        return cls(search.scheduler, search.metric, search.seeds_per_trial)

    def close(self, ledger: Ledger, epoch: int, epochs: int) -> None:
        """Stop the worst trials, where the epoch that has just been closed is a rung.

        Args:
            epochs: of the pack.
        """
        if not self.halving.is_rung(epoch, epochs):
            return
        trials: dict[int, list[Entry]] = {}
        for member, entry in zip(ledger.members, ledger.entries, strict=True):
            if entry.active:
                trials.setdefault(member.index // self.seeds, []).append(entry)
        sign = -1.0 if self.metric in HIGHER_IS_BETTER else 1.0
        key = f"val_{self.metric}"
        losses = {t: sign * fmean(entry.history[-1][key] for entry in some) for t, some in trials.items()}
        for trial, rank in ranked_out(losses, self.halving.factor).items():
            for entry in trials[trial]:
                entry.status = "stopped"
                entry.reason = f"halving: rank {rank} of {len(trials)} at epoch {epoch}"
