"""Every comparison with what is at hand in our own environment, in the order of the page."""

from __future__ import annotations

from benchmarks.correctness import choices, mixtures, ranking, scores, weights
from benchmarks.correctness.comparison import Comparison

COMPARISONS: tuple[Comparison, ...] = (
    *scores.COMPARISONS,
    *mixtures.COMPARISONS,
    *ranking.COMPARISONS,
    *choices.COMPARISONS,
    *weights.COMPARISONS,
)
