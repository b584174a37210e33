"""How far a member's plateaus have lowered its learning rate: a pure function of what it has scored so far.

Nothing is kept besides the member's history, so a resumed training needs no state, and no member's
rate depends on its pack.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ensemble_svc.optim.schedule import SMALLEST
from ensemble_svc.spec.direction import toward_less
from ensemble_svc.spec.schedules import Plateau


@dataclass
class Descent:
    """Takes in a member's scores one after another, as torch's ``ReduceLROnPlateau`` (relative threshold) does.

    An improvement is measured by the size of the best value, so it means the same where a likelihood's
    logarithm is negative.
    """

    schedule: Plateau
    lowered: float = 1.0
    """What the plateaus have left of the rate."""
    best: float = math.inf
    bad_epochs: int = 0
    """Epochs since the last improvement or drop."""

    def see(self, row: Mapping[str, float | int]) -> None:
        """Take in an epoch's row of the member's history."""
        value = self._watched(row)
        margin = self.schedule.threshold * abs(self.best) if math.isfinite(self.best) else 0.0
        if value < self.best - margin:
            self.best, self.bad_epochs = value, 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > self.schedule.patience:
            self.lowered = max(self.lowered * self.schedule.factor, self.schedule.floor, SMALLEST)
            self.bad_epochs = 0

    def _watched(self, row: Mapping[str, float | int]) -> float:
        """The value that should fall."""
        metric = self.schedule.metric
        value = row.get(f"val_{metric}", row["train_loss"])
        return toward_less(metric) * value
