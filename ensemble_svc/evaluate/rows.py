"""What each row contributes to a metric, and how the means of it over rows become the metric.

Each ``…_rows`` function gives S numbers per row, [N, S] float64; each finishing function turns their means
over rows, [..., S], into the metric, [...]. A resample of the rows is then only other means.

Shapes: N examples, C classes, D targets, S statistics of a row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ensemble_svc.evaluate.binning import calibration

LOG_2_PI = math.log(2 * math.pi)

Prediction = Mapping[str, Tensor]
"""``log_probs`` [N, C]; or ``mean``, ``log_variance`` [N, D] and, for a mixture, ``log_density`` [N]."""


def accuracy_rows(prediction: Prediction, target_N: Tensor, _bins: int) -> Tensor:
    """1 where the most probable class (of equals the first) is the true one."""
    return (prediction["log_probs"].argmax(dim=-1) == target_N).double()[:, None]


def brier_rows(prediction: Prediction, target_N: Tensor, _bins: int) -> Tensor:
    """Sum over the classes of the squared distance from the one-hot truth (Brier 1950), 0 to 2."""
    error_NC = prediction["log_probs"].double().exp()
    error_NC[torch.arange(len(error_NC), device=error_NC.device), target_N.long()] -= 1
    return error_NC.square().sum(dim=-1, keepdim=True)


def gap_rows(prediction: Prediction, target_N: Tensor, bins: int) -> Tensor:
    """Confidence minus correctness, in the column of the row's bin; 0 in all others."""
    cell_N, confidence_N, correct_N = calibration(prediction["log_probs"], target_N, bins)
    gaps = confidence_N.new_zeros(len(cell_N), bins + 1)
    return gaps.scatter_(1, cell_N[:, None], (confidence_N - correct_N)[:, None])


def squared_error_rows(prediction: Prediction, target_ND: Tensor, _bins: int) -> Tensor:
    """Squared error, mean over the row's targets."""
    return _error(prediction, target_ND).square().mean(dim=-1, keepdim=True)


def absolute_error_rows(prediction: Prediction, target_ND: Tensor, _bins: int) -> Tensor:
    """Absolute error, mean over the row's targets."""
    return _error(prediction, target_ND).abs().mean(dim=-1, keepdim=True)


def nll_rows(prediction: Prediction, target: Tensor, bins: int) -> Tensor:
    """Minus the log of what the prediction gave the truth: its class, or its density as a mixture."""
    if "log_probs" in prediction:
        return _with_infinity(-prediction["log_probs"].gather(1, target[:, None].long())[:, 0].double())
    if "log_density" in prediction:
        return _with_infinity(-prediction["log_density"].double())
    return gaussian_nll_rows(prediction, target, bins)


def gaussian_nll_rows(prediction: Prediction, target_ND: Tensor, _bins: int) -> Tensor:
    """Minus the log density of the Gaussian with the prediction's mean and variance, sum over targets."""
    log_variance_ND = prediction["log_variance"].double()
    error_ND = _error(prediction, target_ND) * (-0.5 * log_variance_ND).exp()
    return _with_infinity(0.5 * (LOG_2_PI + log_variance_ND + error_ND.square()).sum(dim=-1))


def mean(means: Tensor) -> Tensor:
    """The one mean itself."""
    return means[..., 0]


def root(means: Tensor) -> Tensor:
    """Square root of the one mean."""
    return means[..., 0].sqrt()


def mean_or_infinity(means: Tensor) -> Tensor:
    """The mean of the finite parts; infinite where any row was."""
    return means[..., 0].masked_fill(means[..., 1] > 0, math.inf)


def total_gap(means: Tensor) -> Tensor:
    """Sum over the bins of the absolute mean gap: share of the rows times their gap."""
    return means.abs().sum(dim=-1)


def _error(prediction: Prediction, target_ND: Tensor) -> Tensor:
    return target_ND.double() - prediction["mean"].double()


def _with_infinity(values_N: Tensor) -> Tensor:
    """[N, 2]: the finite part and a mark of infinity, for 0 times infinity would spoil a resample."""
    infinite_N = values_N.isposinf()
    return torch.stack([values_N.masked_fill(infinite_N, 0), infinite_N.double()], dim=-1)
