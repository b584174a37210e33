"""Which way a metric points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

HIGHER_IS_BETTER: Final = frozenset({"accuracy"})
"""Metrics that grow as a member or a trial improves."""


def toward_less(metric: str) -> float:
    """What a metric's value is multiplied by, so that less is better."""
    return -1.0 if metric in HIGHER_IS_BETTER else 1.0


def mean_loss(metric: str, values: Sequence[float]) -> float:
    """The mean of a metric's values, turned so that less is better; not a number where one is not finite."""
    if not all(map(math.isfinite, values)):
        return math.nan
    return toward_less(metric) * math.fsum(values) / len(values)
