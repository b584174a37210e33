"""The learning rate's factor as a function of the step, so that a resumed training needs no state."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ensemble_svc.spec.averages import Cycles
from ensemble_svc.spec.schedules import (
    Constant,
    Cosine,
    Cyclic,
    Exponential,
    Inverse,
    Linear,
    OneCycle,
    Plateau,
    Schedule,
    StepDecay,
)


@dataclass(frozen=True)
class Pace:
    """A schedule laid over the steps of one member's training."""

    schedule: Schedule
    total_steps: int
    steps_per_epoch: int = 1
    swa: Cycles | None = None
    """Its cycles take the schedule's place once they begin."""

    def factor(self, step: int, left: float = 1.0) -> float:
        """What multiplies the learning rate at ``step``.

        Args:
            left: of the schedule's rate by plateaus, which say nothing of the cycles in its place.
        """
        if self.swa is not None:
            gone = min(step, self.total_steps - 1) - self._steps_before(self.swa)
            if gone >= 0:
                return cycled(self.swa, gone, self.steps_per_epoch)
        return factor(self.schedule, step, self.total_steps, self.steps_per_epoch) * left

    def _steps_before(self, swa: Cycles) -> int:
        return swa.first_epoch(self.total_steps // self.steps_per_epoch) * self.steps_per_epoch


def cycled(swa: Cycles, step: int, steps_per_epoch: int) -> float:
    """The learning rate's factor ``step`` steps after the first cycle's begin.

    Izmailov et al. 2018, equation of section 3.1: the last step of a cycle has the factor ``low``.
    """
    length = swa.every * steps_per_epoch
    progress = (step % length + 1) / length
    return (1 - progress) * swa.high + progress * swa.low


def factor(schedule: Schedule, step: int, total_steps: int, steps_per_epoch: int = 1) -> float:
    """What multiplies the learning rate at ``step``, in (0, 1].

    Without a warm-up these are torch's schedulers laid over ``total_steps``: ``CosineAnnealingLR``,
    ``LinearLR``, ``StepLR``, ``ExponentialLR``, ``OneCycleLR`` and, with cycles of equal length,
    ``CosineAnnealingWarmRestarts``. The first step has the factor 1 (but for
    ``one_cycle``), and what a schedule falls to is reached after the last. What ``plateau`` lowers is no
    function of the step: see ``optim/plateau.py``.

    Args:
        step: from 0 to ``total_steps`` - 1; later steps keep the last factor.
    """
    step = min(step, total_steps - 1)
    if isinstance(schedule, OneCycle):
        return _one_cycle(schedule, step, total_steps)
    if isinstance(schedule, Cyclic):
        gone = step * schedule.cycles % total_steps / total_steps
        return max(_half_cosine(1.0, schedule.floor, gone), SMALLEST)
    if step < schedule.warmup:
        return (step + 1) / (schedule.warmup + 1)
    gone, whole = step - schedule.warmup, total_steps - schedule.warmup
    match schedule:
        case Constant() | Plateau():
            return 1.0
        case Cosine():
            floor = _floor(schedule)
            return floor + (1 - floor) * (1 + math.cos(math.pi * gone / whole)) / 2
        case Linear():
            floor = _floor(schedule)
            return floor + (1 - floor) * (1 - gone / whole)
        case StepDecay(every=every):
            between = every * steps_per_epoch
            return max(_gamma(schedule, (whole - 1) // between) ** (gone // between), SMALLEST)
        case Exponential(decay=decay):
            return max(decay ** (-gone / whole), SMALLEST)
        case Inverse(decay=decay):
            return max(1 / (1 + (decay - 1) * gone / whole), SMALLEST)


SMALLEST = 1e-30
"""A factor stays above 0, so that a rate can still be told from none."""


def _floor(schedule: Cosine | Linear) -> float:
    return schedule.floor if schedule.decay is None else 1 / schedule.decay


def _gamma(schedule: StepDecay, num_drops: int) -> float:
    """What each of ``num_drops`` drops leaves."""
    return schedule.gamma if schedule.decay is None or not num_drops else schedule.decay ** (-1 / num_drops)


def _one_cycle(schedule: OneCycle, step: int, total_steps: int) -> float:
    top = max(schedule.rise * total_steps - 1, 0.0)
    last = total_steps - 1
    first = 1 / schedule.start
    if step <= top or step == last == 0:
        return _half_cosine(first, 1.0, step / top if top else 1.0)
    return max(_half_cosine(1.0, first / schedule.end, (step - top) / (last - top)), SMALLEST)


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
