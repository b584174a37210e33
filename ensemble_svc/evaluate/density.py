"""Scores of predicted distributions of numbers: CRPS, intervals, quantiles.

The CRPS is the squared distance of the predicted distribution function from the truth's step, integrated over
the target: an absolute error for distributions, in the target's units (Gneiting & Raftery 2007). All in
float64.

Shapes: K members, N examples, D targets, Q quantile levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError

BISECTIONS = 80
"""Halvings of a mixture's quantile: to the last bits of float64."""


@dataclass(frozen=True)
class Intervals:
    """How predicted intervals fared."""

    coverage: float
    """Share of the truths inside, ends included, over rows and targets."""
    width: float
    """Mean width, in the target's units."""
    score: float
    """Winkler's interval score: width plus 2 / alpha times the distance of truths outside; less is better."""


def crps_gaussian(mean_ND: Tensor, log_variance_ND: Tensor, target_ND: Tensor) -> Tensor:
    """CRPS of each Gaussian, [N, D] float64, in closed form (Gneiting et al. 2005).

    Raises:
        EnsembleError: shapes that do not match.
    """
    _check(mean_ND.shape, log_variance_ND, target_ND)
    deviation_ND = (0.5 * log_variance_ND.double()).exp()
    from_truth_ND = _mean_distance(target_ND.double() - mean_ND.double(), deviation_ND)
    return from_truth_ND - deviation_ND / math.sqrt(math.pi)


def crps_mixture(
    mean_KND: Tensor, log_variance_KND: Tensor, target_ND: Tensor, weights_K: Tensor | None = None
) -> Tensor:
    """CRPS of each target's mixture of Gaussians, [N, D] float64, in closed form (Grimit et al. 2006).

    Mean distance from the truth, less half the mean distance of two draws: K(K + 1)/2 passes over [N, D].

    Args:
        weights_K: non-negative, sum 1; equal when absent.

    Raises:
        EnsembleError: shapes that do not match.
    """
    _check(mean_KND.shape[1:], log_variance_KND[0], target_ND)
    weights = _weights(mean_KND, log_variance_KND, weights_K)
    mean_KND, variance_KND = mean_KND.double(), log_variance_KND.double().exp()
    total_ND = torch.zeros_like(mean_KND[0])
    for j, weight in enumerate(weights):
        total_ND += weight * _mean_distance(target_ND.double() - mean_KND[j], variance_KND[j].sqrt())
        for k in range(j + 1):
            apart_ND = _mean_distance(mean_KND[j] - mean_KND[k], (variance_KND[j] + variance_KND[k]).sqrt())
            total_ND -= (0.5 if k == j else 1.0) * weight * weights[k] * apart_ND
    return total_ND


def mixture_quantiles(
    mean_KND: Tensor, log_variance_KND: Tensor, levels_Q: Tensor, weights_K: Tensor | None = None
) -> Tensor:
    """Quantiles of each target's mixture of Gaussians, [Q, N, D] float64, by bisection.

    Args:
        levels_Q: probabilities, each in (0, 1).
        weights_K: non-negative, sum 1; equal when absent.

    Raises:
        EnsembleError: shapes that do not match; a level that is not between 0 and 1.
    """
    weights = _weights(mean_KND, log_variance_KND, weights_K)
    if levels_Q.ndim != 1 or not ((levels_Q > 0) & (levels_Q < 1)).all():
        raise EnsembleError(f"the quantile levels are {levels_Q.tolist()}; each is between 0 and 1.")
    mean_KND, deviation_KND = mean_KND.double(), (0.5 * log_variance_KND.double()).exp()
    level_Q11 = levels_Q.double()[:, None, None]
    each_KQND = mean_KND[:, None] + deviation_KND[:, None] * math.sqrt(2) * torch.erfinv(2 * level_Q11 - 1)
    low_QND, high_QND = (
        each_KQND.amin(dim=0),
        each_KQND.amax(dim=0),
    )  # the mixture's lies between the members'
    for _ in range(BISECTIONS):
        middle_QND = low_QND + (high_QND - low_QND) / 2
        below_QND = torch.zeros_like(middle_QND)
        for weight, mean_ND, deviation_ND in zip(weights, mean_KND, deviation_KND, strict=True):
            below_QND += weight * torch.special.ndtr((middle_QND - mean_ND) / deviation_ND)
        short_QND = below_QND < level_Q11
        low_QND = torch.where(short_QND, middle_QND, low_QND)
        high_QND = torch.where(short_QND, high_QND, middle_QND)
    return high_QND


def score_intervals(low_ND: Tensor, high_ND: Tensor, target_ND: Tensor, *, alpha: float) -> Intervals:
    """Coverage, width and Winkler's score (1972) of intervals meant to miss a share ``alpha``.

    Raises:
        EnsembleError: shapes that do not match; an end below the other; alpha out of (0, 1).
    """
    _check(low_ND.shape, high_ND, target_ND)
    if not 0 < alpha < 1:
        raise EnsembleError(
            f"alpha is {alpha}; it is the share of truths meant to be missed, between 0 and 1."
        )
    if not (low_ND <= high_ND).all():
        raise EnsembleError("an interval's upper end is below its lower one, or NaN.")
    low_ND, high_ND, target_ND = low_ND.double(), high_ND.double(), target_ND.double()
    outside_ND = (low_ND - target_ND).clamp(min=0) + (target_ND - high_ND).clamp(min=0)
    width = (high_ND - low_ND).mean().item()
    return Intervals(
        coverage=((low_ND <= target_ND) & (target_ND <= high_ND)).double().mean().item(),
        width=width,
        score=width + 2 / alpha * outside_ND.mean().item(),
    )


def pinball(quantile_QND: Tensor, levels_Q: Tensor, target_ND: Tensor) -> Tensor:
    """Pinball loss of each level, [Q] float64, mean over rows and targets (Koenker & Bassett 1978).

    Its mean over all levels is half the CRPS.

    Raises:
        EnsembleError: shapes that do not match.
    """
    _check(quantile_QND.shape[1:], quantile_QND[0], target_ND)
    if levels_Q.shape != quantile_QND.shape[:1]:
        raise EnsembleError(f"there are {len(levels_Q)} levels for {len(quantile_QND)} quantiles.")
    level_Q11 = levels_Q.double()[:, None, None]
    error_QND = target_ND.double() - quantile_QND.double()
    return torch.maximum(level_Q11 * error_QND, (level_Q11 - 1) * error_QND).mean(dim=(1, 2))


def _mean_distance(mean: Tensor, deviation: Tensor) -> Tensor:
    """Mean of |X| for X Gaussian; |mean| where there is no deviation."""
    z = torch.where(deviation > 0, mean / deviation, torch.inf * mean.sign()).nan_to_num(nan=0.0)
    density = (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)
    return 2 * deviation * density + mean * torch.erf(z / math.sqrt(2))


def _weights(mean_KND: Tensor, log_variance_KND: Tensor, weights_K: Tensor | None) -> list[float]:
    if mean_KND.ndim != 3 or mean_KND.shape != log_variance_KND.shape or 0 in mean_KND.shape:
        raise EnsembleError(
            f"mean has shape {list(mean_KND.shape)} and log_variance {list(log_variance_KND.shape)}; both are "
            "[members, rows, targets], none of them empty."
        )
    if weights_K is None:
        return [1 / len(mean_KND)] * len(mean_KND)
    weights: list[float] = torch.as_tensor(weights_K, dtype=torch.float64).tolist()
    if len(weights) != len(mean_KND) or min(weights) < 0 or abs(math.fsum(weights) - 1) > 1e-5:
        raise EnsembleError(f"the weights must be {len(mean_KND)} numbers from 0, of sum 1.")
    return [weight / math.fsum(weights) for weight in weights]


def _check(shape: torch.Size, other_ND: Tensor, target_ND: Tensor) -> None:
    if len(shape) != 2 or 0 in shape or other_ND.shape != shape or target_ND.shape != shape:
        raise EnsembleError(
            f"the shapes are {list(shape)}, {list(other_ND.shape)} and, of the targets, "
            f"{list(target_ND.shape)}; all must be [rows, targets], none of them empty."
        )
