"""The loss of the best answer that does not look at the row: what every network must beat."""

from __future__ import annotations

import math

from torch import Tensor

from ensemble_svc.nn.heads import ResolvedLoss
from ensemble_svc.spec.losses import CrossEntropy, GaussianNll

SMALLEST = 1e-12


def guessing(kind: ResolvedLoss, y_B: Tensor, num_classes: int | None = None) -> float:
    """Mean loss of the best answer that is the same for every row.

    Args:
        y_B: class numbers [B], or numbers [B, T] on the scale of the network's outputs.
        num_classes: over which label smoothing spreads; the largest number and one when absent.
    """
    if isinstance(kind, CrossEntropy):
        shares = y_B.bincount(minlength=num_classes or 0).double() / len(y_B)
        smoothed = (1 - kind.label_smoothing) * shares + kind.label_smoothing / len(shares)
        return float(-(smoothed * smoothed.clamp_min(SMALLEST).log()).sum())
    variance = y_B.double().var(0, correction=0).clamp_min(SMALLEST)
    if isinstance(kind, GaussianNll):
        return float(0.5 * ((2 * math.pi * variance).log() + 1).sum())
    return float(variance.sum())


def least_smoothed(smoothing: float, num_classes: int) -> float:
    """The least cross-entropy with label smoothing: of an answer that gives each row its smoothed target."""
    rest = smoothing / num_classes
    true = 1 - smoothing + rest
    return -true * math.log(true) - ((num_classes - 1) * rest * math.log(rest) if rest else 0.0)
