"""Trials of one search that a scheduler stops as their results come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ensemble_svc.spec.schedulers import Asha, Median

VERDICT = "verdict"
"""Kind of the journal's events that each hold a :class:`Verdict`."""


@dataclass(frozen=True)
class Verdict:
    """What a scheduler said when it heard of one trial's result."""

    pack: str
    """The trial's."""
    epoch: int
    value: float
    """Its objective after the epoch; infinite or not a number where a member of it diverged."""
    stops: bool
    """Whether it trains no further."""

    def to_json(self) -> dict[str, Any]:
        """As the journal keeps it."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Race:
    """One search of an asynchronous scheduler; each trial is one pack in one slot."""

    scheduler: Asha | Median
    higher_is_better: bool
    """Whether the objective is better the higher it is."""
    epochs: int
    """Of a trial that nobody stops."""
    packs: frozenset[str]
    """Of the trials that are still to train."""
    earlier: tuple[Verdict, ...]
    """Every verdict so far, in order; the scheduler is told these results again."""
    record: Callable[[Verdict], None]
    """Called with each further verdict before its trial hears of it; returns once it is on the disk."""
