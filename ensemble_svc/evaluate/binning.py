"""Confidence against correctness, row by row: what calibration error and reliability diagram share.

A row's confidence is the probability of the class it predicts. Bins are of equal width and closed
below, [0, 1/B), [1/B, 2/B), …, and are found from the confidence rounded to float32, as torchmetrics
does. A confidence that rounds to exactly 1 has a cell of its own, number B, again as in torchmetrics.

Shapes: N examples, C classes; B bins.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Calibration(NamedTuple):
    """What is known of each row; all [N]."""

    cell: Tensor
    """int64, 0 to B; B only for a confidence of exactly 1."""
    confidence: Tensor
    """float64, probability of the predicted class."""
    correct: Tensor
    """float64, 1 where the predicted class is the true one, else 0."""


def calibration(log_probs_NC: Tensor, target_N: Tensor, bins: int) -> Calibration:
    """Cell, confidence and correctness of each row; of equal classes the first is predicted."""
    log_confidence_N, predicted_N = log_probs_NC.max(dim=-1)
    confidence_N = log_confidence_N.double().exp_().clamp_(max=1)
    return Calibration(cells(confidence_N, bins), confidence_N, (predicted_N == target_N).double())


def cells(confidence_N: Tensor, bins: int) -> Tensor:
    """The cell of each confidence."""
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float32, device=confidence_N.device)
    return torch.bucketize(confidence_N.float().clamp(max=1), edges, right=True) - 1
