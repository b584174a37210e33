"""How many independently trained members a cheaper ensemble is worth.

Deep-ensemble equivalents (Ashukha et al. 2020, arXiv:2002.06470): the smallest number of independent members
whose metric is as good as that of the ensemble in question (snapshots, SWAG draws, dropout masks). Read off
the curve of the independent members, straight between its sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.metrics import METRICS


@dataclass(frozen=True)
class Equivalents:
    """A number of independent members, real; 1 at least, infinite where the curve never gets as good."""

    members: float
    """By the mean over subsets of the independent members."""
    fewest: float
    """By the curve's better edge: lucky independent members."""
    most: float
    """By its worse edge."""


def equivalents(score: float, curve: Sequence[Mapping[str, Any]], name: str) -> Equivalents:
    """Independent members that the score is worth.

    Args:
        score: the ensemble's metric on the rows of the curve.
        curve: of independent members, as ``curve.size_curve`` returns it.
        name: the metric, which gives the direction.

    Raises:
        EnsembleError: a metric that the curve does not hold, a curve without points, a score that is NaN.
    """
    if name not in METRICS or not curve or any(name not in point for point in curve):
        raise EnsembleError(f"the curve of {len(curve)} sizes does not hold the metric '{name}' at each.")
    if math.isnan(score):
        raise EnsembleError("the score is NaN, which is worth no number of members.")
    sizes = [point["size"] for point in curve]
    higher = METRICS[name].higher_is_better
    by_edge = {
        edge: _reach(score, sizes, [point[name][edge] for point in curve], higher)
        for edge in ("mean", "low", "high")
    }
    better, worse = ("high", "low") if higher else ("low", "high")
    return Equivalents(by_edge["mean"], by_edge[better], by_edge[worse])


def _reach(score: float, sizes: Sequence[int], values: Sequence[float], higher_is_better: bool) -> float:
    """The first size, straight between those measured, at which the curve is as good as the score."""
    sign = 1 if higher_is_better else -1
    good, wanted = [sign * value for value in values], sign * score
    if good[0] >= wanted:
        return float(sizes[0])
    for i in range(1, len(sizes)):
        if good[i] >= wanted:
            share = (wanted - good[i - 1]) / (good[i] - good[i - 1])
            return sizes[i - 1] + share * (sizes[i] - sizes[i - 1])
    return math.inf
