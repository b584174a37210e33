"""The reliability diagram: how often the ensemble is right when it says it is this sure.

The bins are those of the calibration error: summing over bins count / N x |confidence - accuracy| gives
it. (A confidence of exactly 1 joins the last bin here and stands alone there; that matters only for a row
that is wrong with a confidence of exactly 1.)

Shapes: N examples, C classes, B bins.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ensemble_svc.evaluate.binning import calibration
from ensemble_svc.evaluate.checks import check_prediction


def reliability(log_probs_NC: Tensor, target_N: Tensor, *, bins: int = 15) -> dict[str, list[Any]]:
    """Confidence, accuracy and number of rows in each bin of confidence (DeGroot & Fienberg 1983).

    Returns:
        ``edges``: B + 1 numbers from 0 to 1. ``count``: rows in each bin, N together. ``confidence``,
        ``accuracy``: means over the bin's rows, None where it has none.

    Raises:
        EnsembleError: predictions and targets that do not belong together.
    """
    check_prediction("classification", {"log_probs": log_probs_NC}, target_N, who="the prediction")
    cell_N, confidence_N, correct_N = calibration(log_probs_NC, target_N, bins)
    cell_N = cell_N.clamp(max=bins - 1)
    count_B = torch.bincount(cell_N, minlength=bins).tolist()
    return {
        "edges": [b / bins for b in range(bins + 1)],
        "confidence": _bin_means(cell_N, confidence_N, count_B),
        "accuracy": _bin_means(cell_N, correct_N, count_B),
        "count": count_B,
    }


def _bin_means(cell_N: Tensor, values_N: Tensor, count_B: list[int]) -> list[float | None]:
    sums_B = torch.bincount(cell_N, weights=values_N, minlength=len(count_B)).tolist()
    return [total / count if count else None for total, count in zip(sums_B, count_B, strict=True)]
