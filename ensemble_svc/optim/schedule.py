"""The learning rate's factor as a function of the step, so that a resumed training needs no state."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ensemble_svc.spec.training import Constant, Cosine, Schedule


@dataclass(frozen=True)
class Pace:
    """A schedule laid over the steps of one member's training."""

    schedule: Schedule
    total_steps: int

    def factor(self, step: int) -> float:
        """What multiplies the learning rate at ``step``."""
        return factor(self.schedule, step, self.total_steps)


def factor(schedule: Schedule, step: int, total_steps: int) -> float:
    """What multiplies the learning rate at ``step``, in (0, 1].

    Without a warm-up the cosine is that of ``torch.optim.lr_scheduler.CosineAnnealingLR`` with
    ``T_max=total_steps``: the first step has the factor 1, and ``floor`` is reached after the last.

    Args:
        step: from 0 to ``total_steps`` - 1; later steps keep the last factor.
    """
    match schedule:
        case Constant():
            return 1.0
        case Cosine():
            return _cosine(schedule, min(step, total_steps - 1), total_steps)


def _cosine(schedule: Cosine, step: int, total_steps: int) -> float:
    if step < schedule.warmup:
        return (step + 1) / (schedule.warmup + 1)
    progress = (step - schedule.warmup) / (total_steps - schedule.warmup)
    return schedule.floor + (1 - schedule.floor) * (1 + math.cos(math.pi * progress)) / 2
