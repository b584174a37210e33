"""Which way a metric points."""

from __future__ import annotations

from typing import Final

HIGHER_IS_BETTER: Final = frozenset({"accuracy"})
"""Metrics that grow as a member or a trial improves."""


def toward_less(metric: str) -> float:
    """What a metric's value is multiplied by, so that less is better."""
    return -1.0 if metric in HIGHER_IS_BETTER else 1.0
