"""Isotonic calibration: each class's probability through the best increasing step function of it.

Each class against the rest (Zadrozny & Elkan 2002): the increasing function of its probability that is nearest
to how often it is the truth, by pooling adjacent violators (Ayer et al. 1955), interpolated between its knots;
the classes are then normalised. It needs many held-out rows (some thousand), and, unlike a temperature, may
change predicted classes. The knots are scikit-learn's IsotonicRegression's.

Shapes: N held-out rows, C classes, J knots of one class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble_svc.aggregate.calibration.targets import check_classes
from ensemble_svc.errors import EnsembleError

Knots = tuple[tuple[float, ...], tuple[float, ...]]
"""Probabilities, ascending, and the calibrated ones there."""


@dataclass(frozen=True)
class Isotonic:
    """One increasing function per class."""

    knots: tuple[Knots, ...]
    """One per class; constant beyond its ends."""
    floor: float
    """Least calibrated probability before normalising, so that no class is ever called impossible."""

    def apply(self, log_probs: Tensor) -> Tensor:
        """Calibrated log probabilities, [..., C] of the same shape and type; equal ones if all are 0.

        Raises:
            EnsembleError: another number of classes.
        """
        if log_probs.shape[-1] != len(self.knots):
            raise EnsembleError(
                f"these predictions have {log_probs.shape[-1]} classes; the calibration is of {len(self.knots)}."
            )
        columns = zip(log_probs.double().exp().unbind(-1), self.knots, strict=True)
        probs = torch.stack([_interpolate(p, knots) for p, knots in columns], dim=-1).clamp(min=self.floor)
        probs = torch.where(probs.sum(-1, keepdim=True) > 0, probs, torch.ones_like(probs))
        return (probs / probs.sum(-1, keepdim=True)).log().to(log_probs.dtype)


def fit_isotonic(log_probs_NC: Tensor, target_N: Tensor, *, floor: float | None = None) -> Isotonic:
    """Increasing functions fitted on held-out rows.

    Args:
        floor: least calibrated probability; half a row in all when absent, 1 / (2 (N + 1)).

    Raises:
        EnsembleError: predictions and targets that do not belong together; a floor out of [0, 1).
    """
    check_classes(log_probs_NC, target_N)
    floor = 1 / (2 * (len(target_N) + 1)) if floor is None else floor
    if not 0 <= floor < 1:
        raise EnsembleError(f"floor is {floor}; it is a probability, from 0 and below 1.")
    probs_NC = log_probs_NC.double().exp().cpu()
    columns = enumerate(probs_NC.unbind(-1))
    return Isotonic(tuple(_fit_class(p_N, (target_N.cpu() == c).double()) for c, p_N in columns), floor)


def _fit_class(probs_N: Tensor, truth_N: Tensor) -> Knots:
    values_J, group_N, counts_J = probs_N.unique(return_inverse=True, return_counts=True)
    means_J = torch.zeros_like(values_J).scatter_add_(0, group_N, truth_N) / counts_J
    fitted = _pool_violators(means_J.tolist(), counts_J.tolist())
    last = len(fitted) - 1
    kept = [
        j
        for j in range(len(fitted))
        if j in (0, last) or fitted[j] != fitted[j - 1] or fitted[j] != fitted[j + 1]
    ]
    return tuple(values_J[kept].tolist()), tuple(fitted[j] for j in kept)


def _pool_violators(means: list[float], counts: list[int]) -> list[float]:
    """The nearest increasing sequence, weighted by the counts: neighbours out of order are averaged."""
    blocks: list[list[float]] = []  # sum, weight, length
    for mean, count in zip(means, counts, strict=True):
        blocks.append([mean * count, count, 1])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            total, weight, length = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + weight, blocks[-1][2] + length]
    return [total / weight for total, weight, length in blocks for _ in range(int(length))]


def _interpolate(probs: Tensor, knots: Knots) -> Tensor:
    at_J, value_J = (probs.new_tensor(column) for column in knots)
    if len(at_J) == 1:
        return value_J.expand_as(probs)
    right = torch.searchsorted(at_J, probs.contiguous()).clamp(1, len(at_J) - 1)
    share = ((probs - at_J[right - 1]) / (at_J[right] - at_J[right - 1])).clamp(0, 1)
    return torch.lerp(value_J[right - 1], value_J[right], share)
