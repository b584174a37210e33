"""Other measures of miscalibration than the binned error of the catalogue, and what makes up the Brier score.

All in float64 and independent of the order of the rows: rows of equal confidence are taken together.

Shapes: N examples, C classes, B bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.binning import calibration
from ensemble_svc.evaluate.checks import check_prediction

GRID = 1000
"""Cells of the smooth error's confidence axis: it is good to about one of them."""


@dataclass(frozen=True)
class BrierParts:
    """The Brier score = reliability - resolution + uncertainty + within_bins, exactly."""

    reliability: float
    """Mean squared gap between a bin's mean probability and how often its class is true; less is better."""
    resolution: float
    """Mean squared gap between a bin's frequency and the class's overall; more is better."""
    uncertainty: float
    """Of the labels alone: sum over classes of frequency times (1 - frequency)."""
    within_bins: float
    """What the bins hide: spread of the probabilities in a bin, less twice their covariance with the truth."""

    @property
    def brier(self) -> float:
        """The score of which these are the parts."""
        return self.reliability - self.resolution + self.uncertainty + self.within_bins


def brier_parts(log_probs_NC: Tensor, target_N: Tensor, *, bins: int = 15) -> BrierParts:
    """Murphy's split of the Brier score (1973) with the within-bin terms of Stephenson et al. (2008).

    Each class's probabilities are put in ``bins`` bins of equal width, [b/B, (b+1)/B), the last one closed;
    the parts are sums over the classes.

    Raises:
        EnsembleError: predictions and targets that do not belong together; no bins.
    """
    _check(log_probs_NC, target_N, bins)
    parts = torch.zeros(4, dtype=torch.float64)
    for c, log_prob_N in enumerate(log_probs_NC.unbind(-1)):
        prob_N, truth_N = log_prob_N.double().exp(), (target_N == c).double()
        cell_N = (prob_N * bins).long().clamp_(max=bins - 1)
        share_B = torch.bincount(cell_N, minlength=bins).double() / len(cell_N)
        mean_B, frequency_B = (_mean_of_cell(cell_N, v_N, bins) for v_N in (prob_N, truth_N))
        overall = truth_N.mean()
        spread = prob_N.square().mean() - (share_B * mean_B.square()).sum()
        together = (prob_N * truth_N).mean() - (share_B * mean_B * frequency_B).sum()
        parts += torch.stack(
            [
                (share_B * (mean_B - frequency_B).square()).sum(),
                (share_B * (frequency_B - overall).square()).sum(),
                overall * (1 - overall),
                spread - 2 * together,
            ]
        ).cpu()
    return BrierParts(*parts.tolist())


def adaptive_error(log_probs_NC: Tensor, target_N: Tensor, *, bins: int = 15) -> float:
    """Calibration error over bins of equal mass (Nguyen & O'Connor 2015): N rows by confidence, cut in B.

    Bins differ by at most one row. Rows of equal confidence share their mean correctness, so that it does not
    matter which of them falls on which side of a cut.

    Raises:
        EnsembleError: predictions and targets that do not belong together; no bins.
    """
    _check(log_probs_NC, target_N, bins)
    _, confidence_N, correct_N = calibration(log_probs_NC, target_N, bins)
    return adaptive_gap(confidence_N, correct_N, bins)


def adaptive_gap(confidence_N: Tensor, correct_N: Tensor, bins: int) -> float:
    """As ``adaptive_error``, of confidences and whether they were right, both float64."""
    confidence_N, order_N = confidence_N.sort()
    gap_N = confidence_N - shared_by_ties(confidence_N, correct_N[order_N])
    return sum(part.sum().abs().item() for part in gap_N.tensor_split(bins)) / len(gap_N)


def classwise_error(log_probs_NC: Tensor, target_N: Tensor, *, bins: int = 15) -> float:
    """Mean over the classes of the binned error of each class's probability (Kull et al. 2019).

    Unlike the error of the predicted class alone it sees every probability. Bins are of equal width.

    Raises:
        EnsembleError: predictions and targets that do not belong together; no bins.
    """
    _check(log_probs_NC, target_N, bins)
    total = 0.0
    for c, log_prob_N in enumerate(log_probs_NC.unbind(-1)):
        prob_N = log_prob_N.double().exp()
        cell_N = (prob_N * bins).long().clamp_(max=bins - 1)
        gap_N = prob_N - (target_N == c).double()
        total += torch.zeros_like(prob_N[:1].expand(bins)).scatter_add(0, cell_N, gap_N).abs().sum().item()
    return total / log_probs_NC.shape[1] / len(target_N)


def smooth_error(log_probs_NC: Tensor, target_N: Tensor) -> float:
    """The smooth calibration error of the predicted class (Błasiok & Nakkiran 2023, arXiv:2309.12236).

    The gap between correctness and confidence, smoothed along the confidence by a Gaussian reflected at 0 and
    1, and its absolute value integrated. The width is the one equal to the error itself, so there is no bin
    to choose and the number moves little when the predictions do. Confidences are put on a grid of
    ``GRID`` cells, linearly.

    Raises:
        EnsembleError: predictions and targets that do not belong together.
    """
    _check(log_probs_NC, target_N, 1)
    _, confidence_N, correct_N = calibration(log_probs_NC, target_N, 1)
    return smooth_gap(confidence_N.cpu(), (correct_N - confidence_N).cpu())


def smooth_gap(at_N: Tensor, gap_N: Tensor) -> float:
    """The width s at which the integral of the gaps smoothed by s equals s; the integral where none does.

    Args:
        at_N: where, from 0 to 1.
        gap_N: what is smoothed, truth minus prediction.
    """
    low, high = 1 / GRID, 1.0
    cosine_GG, coefficient_G = _cosines(at_N, gap_N)
    if _smoothed(cosine_GG, coefficient_G, low) <= low:
        return _smoothed(cosine_GG, coefficient_G, low)
    while high - low > 1e-7:
        middle = (low + high) / 2
        if _smoothed(cosine_GG, coefficient_G, middle) > middle:
            low = middle
        else:
            high = middle
    return _smoothed(cosine_GG, coefficient_G, high)


def shared_by_ties(sorted_N: Tensor, values_N: Tensor) -> Tensor:
    """Each value replaced by the mean over the rows whose (sorted) key equals its own."""
    _, group_N, count_G = sorted_N.unique_consecutive(return_inverse=True, return_counts=True)
    return (torch.zeros_like(count_G, dtype=torch.float64).scatter_add_(0, group_N, values_N) / count_G)[
        group_N
    ]


def _cosines(at_N: Tensor, gap_N: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines at the cells' middles, and the gaps' coefficients: the reflected heat kernel's own basis."""
    place_N = (at_N * GRID - 0.5).clamp(0, GRID - 1)
    left_N = place_N.long().clamp(max=GRID - 2)
    share_N = place_N - left_N
    mass_G = torch.zeros(GRID, dtype=torch.float64)
    mass_G.scatter_add_(0, left_N, gap_N * (1 - share_N)).scatter_add_(0, left_N + 1, gap_N * share_N)
    middle_G = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
    cosine_GG = (math.pi * middle_G[:, None] * torch.arange(GRID)).cos()
    return cosine_GG, cosine_GG.T @ mass_G / len(at_N)


def _smoothed(cosine_GG: Tensor, coefficient_G: Tensor, width: float) -> float:
    frequency_G = torch.arange(GRID, dtype=torch.float64)
    damped_G = coefficient_G * (-0.5 * (math.pi * width * frequency_G).square()).exp()
    damped_G[1:] *= 2
    return (cosine_GG @ damped_G).abs().mean().item()


def _mean_of_cell(cell_N: Tensor, values_N: Tensor, bins: int) -> Tensor:
    count_B = torch.bincount(cell_N, minlength=bins).clamp(min=1)
    return torch.zeros_like(count_B, dtype=torch.float64).scatter_add_(0, cell_N, values_N) / count_B


def _check(log_probs_NC: Tensor, target_N: Tensor, bins: int) -> None:
    check_prediction("classification", {"log_probs": log_probs_NC}, target_N, who="the prediction")
    if bins < 1:
        raise EnsembleError(f"bins is {bins}; it must be at least 1.")
