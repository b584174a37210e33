"""Other measures of miscalibration than the binned error of the catalogue, and what makes up the Brier score.

All in float64 and independent of the order of the rows: rows of equal confidence are taken together.

Shapes: N examples, C classes, B bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.binning import calibration
from ensemble_svc.evaluate.checks import check_prediction

GRID = 1000
"""Cells of the smooth error's confidence axis: it is good to about one of them."""
NUMBERS = 1 << 17
"""Probabilities that are put in bins together."""


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
    cells, num_rows = _class_cells(log_probs_NC, target_N, bins), len(target_N)
    share_CB, overall_C = cells.count_CB / num_rows, cells.truth_CB.sum(dim=1) / num_rows
    filled_CB = cells.count_CB.clamp(min=1)
    mean_CB, frequency_CB = cells.prob_CB / filled_CB, cells.truth_CB / filled_CB
    spread_C = cells.square_C / num_rows - (share_CB * mean_CB.square()).sum(dim=1)
    together_C = cells.together_C / num_rows - (share_CB * mean_CB * frequency_CB).sum(dim=1)
    return BrierParts(
        reliability=(share_CB * (mean_CB - frequency_CB).square()).sum().item(),
        resolution=(share_CB * (frequency_CB - overall_C[:, None]).square()).sum().item(),
        uncertainty=(overall_C * (1 - overall_C)).sum().item(),
        within_bins=(spread_C - 2 * together_C).sum().item(),
    )


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
    cells = _class_cells(log_probs_NC, target_N, bins)
    gap = (cells.prob_CB - cells.truth_CB).abs().sum().item()
    return gap / log_probs_NC.shape[1] / len(target_N)


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


class _ClassCells(NamedTuple):
    """Sums over the rows whose probability of a class lies in a bin, and over all rows: float64."""

    count_CB: Tensor
    prob_CB: Tensor
    truth_CB: Tensor
    """Rows of that class."""
    square_C: Tensor
    """Of the class's probability."""
    together_C: Tensor
    """Of its probability where it is the true one."""


def _class_cells(log_probs_NC: Tensor, target_N: Tensor, bins: int) -> _ClassCells:
    """A few rows at a time, for so they stay in the processor's cache."""
    num_classes = log_probs_NC.shape[1]
    sums_X = [log_probs_NC.new_zeros(num_classes * bins, dtype=torch.float64) for _ in range(3)]
    sums_C = [log_probs_NC.new_zeros(num_classes, dtype=torch.float64) for _ in range(2)]
    first_C1 = torch.arange(num_classes, device=log_probs_NC.device)[:, None] * bins
    step = max(1, NUMBERS // num_classes)
    for log_probs_nC, target_n in zip(log_probs_NC.split(step), target_N.long().split(step), strict=True):
        prob_Cn = log_probs_nC.T.contiguous().double().exp()
        cell_Cn = (prob_Cn * bins).long().clamp_(max=bins - 1).add_(first_C1)
        truth_n = prob_Cn.gather(0, target_n[None])[0]
        sums_X[0].add_(torch.bincount(cell_Cn.view(-1), minlength=num_classes * bins))
        sums_X[1].scatter_add_(0, cell_Cn.view(-1), prob_Cn.view(-1))
        sums_X[2].add_(torch.bincount(cell_Cn.gather(0, target_n[None])[0], minlength=num_classes * bins))
        sums_C[0].add_(torch.linalg.vecdot(prob_Cn, prob_Cn))
        sums_C[1].scatter_add_(0, target_n, truth_n)
    return _ClassCells(*(sums.view(num_classes, bins) for sums in sums_X), *sums_C)


def _check(log_probs_NC: Tensor, target_N: Tensor, bins: int) -> None:
    check_prediction("classification", {"log_probs": log_probs_NC}, target_N, who="the prediction")
    if bins < 1:
        raise EnsembleError(f"bins is {bins}; it must be at least 1.")
