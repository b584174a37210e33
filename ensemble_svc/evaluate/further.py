"""The metrics that are not measured unless they are asked for: what each row gives, or what all rows give at once.

Of a mixture of Gaussians the CRPS and the ends of the central interval are the mixture's, which the prediction brings
along (``mixture_scores``); a prediction without them is one Gaussian, and they are its own.

Shapes: K members, N examples, C classes, D targets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ensemble_svc.evaluate.calibration_error import (
    adaptive_error,
    brier_parts,
    classwise_error,
    smooth_error,
)
from ensemble_svc.evaluate.checks import MIXTURE_KEYS
from ensemble_svc.evaluate.density import crps_gaussian, crps_mixture, mixture_quantiles
from ensemble_svc.evaluate.rows import Prediction
from ensemble_svc.evaluate.selective import aurc, excess_aurc

LEVELS = (0.05, 0.95)
"""Ends of the central 90 % interval."""
TOP = 5
"""Classes among which ``top5`` looks for the truth."""


def mixture_scores(
    names: Iterable[str], mean_KND: Tensor, log_variance_KND: Tensor, target_ND: Tensor, weights_K: Tensor
) -> dict[str, Tensor]:
    """What the metrics named need of a mixture of Gaussians beside its moments.

    Returns:
        ``crps`` [N], mean over the targets; ``low`` and ``high`` [N, D], the ends of the central 90 % interval.

    Raises:
        EnsembleError: shapes or weights that do not match.
    """
    wanted = {MIXTURE_KEYS.get(name) for name in names}
    found = {}
    if "crps" in wanted:
        found["crps"] = crps_mixture(mean_KND, log_variance_KND, target_ND, weights_K).mean(dim=-1)
    if "low" in wanted:
        levels = torch.tensor(LEVELS, dtype=torch.float64)
        found["low"], found["high"] = mixture_quantiles(mean_KND, log_variance_KND, levels, weights_K)
    return found


def top5_rows(prediction: Prediction, target_N: Tensor, _bins: int) -> Tensor:
    """1 where the true class is among the five most probable, of equals the first."""
    log_probs_NC = prediction["log_probs"]
    truth_N1 = log_probs_NC.gather(1, target_N[:, None].long())
    earlier_NC = torch.arange(log_probs_NC.shape[1], device=target_N.device) < target_N[:, None]
    ahead_N = ((log_probs_NC > truth_N1) | ((log_probs_NC == truth_N1) & earlier_NC)).sum(dim=1)
    return (ahead_N < TOP).double()[:, None]


def adaptive(prediction: Prediction, target_N: Tensor, bins: int) -> float:
    """As ``calibration_error.adaptive_error``."""
    return adaptive_error(prediction["log_probs"], target_N, bins=bins)


def classwise(prediction: Prediction, target_N: Tensor, bins: int) -> float:
    """As ``calibration_error.classwise_error``: bins times classes are too many statistics to keep of every row."""
    return classwise_error(prediction["log_probs"], target_N, bins=bins)


def smooth(prediction: Prediction, target_N: Tensor, _bins: int) -> float:
    """As ``calibration_error.smooth_error``."""
    return smooth_error(prediction["log_probs"], target_N)


def area_under_risk(prediction: Prediction, target_N: Tensor, _bins: int) -> float:
    """Area under the risk-coverage curve, rows doubted by the probability of the class they are given."""
    return aurc(*_wrong_and_doubt(prediction, target_N))


def excess_area_under_risk(prediction: Prediction, target_N: Tensor, _bins: int) -> float:
    """That area above the one of the best ranking of the same errors."""
    return excess_aurc(*_wrong_and_doubt(prediction, target_N))


def _wrong_and_doubt(prediction: Prediction, target_N: Tensor) -> tuple[Tensor, Tensor]:
    confidence_N, predicted_N = prediction["log_probs"].max(dim=-1)
    return (predicted_N != target_N).double(), -confidence_N.double()


def reliability(prediction: Prediction, target_N: Tensor, bins: int) -> float:
    """As ``calibration_error.brier_parts``."""
    return brier_parts(prediction["log_probs"], target_N, bins=bins).reliability


def resolution(prediction: Prediction, target_N: Tensor, bins: int) -> float:
    """As ``calibration_error.brier_parts``."""
    return brier_parts(prediction["log_probs"], target_N, bins=bins).resolution


def crps_rows(prediction: Prediction, target_ND: Tensor, _bins: int) -> Tensor:
    """The mixture's where the prediction has it, else the Gaussian's; mean over the targets."""
    if "crps" in prediction:
        return prediction["crps"].double()[:, None]
    crps_ND = crps_gaussian(prediction["mean"], prediction["log_variance"], target_ND)
    return crps_ND.mean(dim=-1, keepdim=True)


def pinball_rows(prediction: Prediction, target_ND: Tensor, _bins: int) -> Tensor:
    """Mean pinball loss of both ends of the interval (Koenker & Bassett 1978), mean over the targets."""
    total_ND = torch.zeros_like(target_ND, dtype=torch.float64)
    for level, end_ND in zip(LEVELS, ends(prediction), strict=True):
        error_ND = target_ND.double() - end_ND
        total_ND += torch.maximum(level * error_ND, (level - 1) * error_ND)
    return total_ND.mean(dim=-1, keepdim=True) / len(LEVELS)


def width_rows(prediction: Prediction, _target_ND: Tensor, _bins: int) -> Tensor:
    """Width of the interval, mean over the targets."""
    low_ND, high_ND = ends(prediction)
    return (high_ND - low_ND).mean(dim=-1, keepdim=True)


def inside_rows(prediction: Prediction, target_ND: Tensor, _bins: int) -> Tensor:
    """Share of the row's targets inside the interval, ends included."""
    low_ND, high_ND = ends(prediction)
    return ((low_ND <= target_ND) & (target_ND <= high_ND)).double().mean(dim=-1, keepdim=True)


def coverage_gap(means: Tensor) -> Tensor:
    """Distance of the share inside from what the interval is meant to hold."""
    return (means[..., 0] - (LEVELS[1] - LEVELS[0])).abs()


def ends(prediction: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Ends of the central 90 % interval, [N, D] float64."""
    if "low" in prediction:
        return prediction["low"].double(), prediction["high"].double()
    mean_ND, deviation_ND = prediction["mean"].double(), (0.5 * prediction["log_variance"].double()).exp()
    reach_ND = (
        math.sqrt(2) * torch.erfinv(torch.tensor(2 * LEVELS[1] - 1, dtype=torch.float64)) * deviation_ND
    )
    return mean_ND - reach_ND, mean_ND + reach_ND
