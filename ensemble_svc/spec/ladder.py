"""When the trials of a search are ranked, with which others, and which of them stop: the rungs of all its brackets.

Pure: a function of the search, the number of epochs and the trials' losses, whoever trained them and where.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ensemble_svc.spec.askers import Bohb
from ensemble_svc.spec.direction import mean_loss
from ensemble_svc.spec.schedulers import Ranked
from ensemble_svc.spec.search import SearchSpec


@dataclass(frozen=True)
class Ladder:
    """The rungs of a search whose trials have at most so many epochs."""

    scheduler: Ranked
    metric: str
    seeds: int
    """Members of a trial."""
    epochs: int
    in_turn: bool = False
    """Whether brackets come one after another, each with all of its trials, rather than side by side."""

    @classmethod
    def of(cls, search: SearchSpec | None, epochs: int) -> Ladder | None:
        """What the search asks for; None where no trial is ranked."""
        if search is None or not isinstance(search.scheduler, Ranked):
            return None
        in_turn = isinstance(search.algorithm, Bohb)
        return cls(search.scheduler, search.metric, search.seeds_per_trial, epochs, in_turn)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Every epoch after which some trials are ranked, in order."""
        return tuple(sorted({rung for rungs in self.scheduler.brackets(self.epochs) for rung in rungs}))

    def trial(self, member: int) -> int:
        """The trial of the member with this index."""
        return member // self.seeds

    def bracket(self, trial: int) -> tuple[int, int]:
        """Which trials it is ranked with: the turn in which brackets come, and the bracket's number."""
        dealt = _dealt(self.scheduler.sizes(self.epochs), self.in_turn)
        turn, place = divmod(trial, len(dealt))
        return (turn if self.in_turn else 0), dealt[place]

    def bracket_end(self, trial: int) -> int:
        """Of brackets that come one after another, the number of trials when the one of ``trial`` is full."""
        own, end = self.bracket(trial), trial
        while self.bracket(end) == own:
            end += 1
        return end

    def loss(self, values: Sequence[float]) -> float:
        """A trial's loss by the metric of its members: their mean, turned so that less is better."""
        return mean_loss(self.metric, values)

    def stopped(self, losses: Mapping[int, float], epoch: int) -> dict[int, str]:
        """The trials that stop after an epoch, each with the reason.

        Args:
            losses: of the trials that still train, see ``loss``.
        """
        found = dict[int, str]()
        brackets, rungs = self.scheduler.brackets(self.epochs), dict[tuple[int, int], dict[int, float]]()
        for trial, loss in losses.items():
            rungs.setdefault(self.bracket(trial), {})[trial] = loss
        for (_, bracket), some in rungs.items():
            if epoch not in brackets[bracket]:
                continue
            among = f", bracket {len(brackets[bracket])}" if len(brackets) > 1 else ""
            for trial, rank in ranked_out(some, self.scheduler.factor).items():
                found[trial] = f"{self.scheduler.name}: rank {rank} of {len(some)} at epoch {epoch}{among}"
        return found


def ranked_out(losses: Mapping[int, float], factor: int) -> dict[int, int]:
    """The trials that stop, with their rank from 1; one in ``factor`` goes on, and one at least.

    Args:
        losses: by trial, less is better; of equal ones, and of those that are not numbers, the earlier is better.
    """
    order = sorted(losses, key=lambda trial: (math.isnan(losses[trial]), losses[trial], trial))
    keep = max(1, len(order) // factor)
    return {trial: rank for rank, trial in enumerate(order, start=1) if rank > keep}


@lru_cache(maxsize=64)
def _dealt(sizes: tuple[int, ...], in_turn: bool) -> tuple[int, ...]:
    """The bracket of each trial in one deal to all of them: one bracket after another, or all evenly mixed."""
    if in_turn:
        return tuple(bracket for bracket, size in enumerate(sizes) for _ in range(size))
    given, dealt, whole = [0] * len(sizes), list[int](), sum(sizes)
    for number in range(1, whole + 1):
        behind = [number * size / whole - had for size, had in zip(sizes, given, strict=True)]
        bracket = max(range(len(sizes)), key=lambda b: behind[b])
        given[bracket] += 1
        dealt.append(bracket)
    return tuple(dealt)
