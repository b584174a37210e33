"""Bias and variance over trainings: what every member gets wrong, and what single members add to it.

Members that differ in their bag, seed and order are draws of one training. The mean loss of a draw is split
about the draws' centre: ``error = bias + variance``, exactly, where the bias is the loss of the centre of infinitely
many draws (with the noise of the labels, which one label for each row cannot tell from it) and the variance is what a
single draw adds. The centre is the mean for squared errors (Geman, Bienenstock & Doursat 1992) and for the Brier
score, and the normalised geometric mean for the log loss (Heskes 1998; Pfau 2013), about which the variance is a mean
Kullback-Leibler divergence.

K draws lie about their own centre more closely than about the true one. The variance here is the jackknife of
the plain one (Quenouille 1956): for squares exactly K / (K - 1) times it, and so without bias; for the log loss without
the bias of order 1 / K. It is never less than the plain one, so never below 0. What it gains the bias loses.

Shapes: K members, N examples, C classes, D targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError
from ensemble_svc.spec.job import Task

NUMBERS = 1 << 22
"""Of the members, looked at together."""


@dataclass(frozen=True)
class Parts:
    """``error = bias + variance``."""

    error: float
    """Mean loss of a single member."""
    bias: float
    """Loss of the centre of infinitely many, the noise of the labels included."""
    variance: float
    """What a single member adds, from 0."""


def squares(mean_KND: Tensor, target_ND: Tensor) -> Parts:
    """Squared error, mean over rows and targets.

    Raises:
        EnsembleError: shapes that do not match, or fewer than two members.
    """
    _check(mean_KND, target_ND)
    error = spread = 0.0
    for rows in _pieces(mean_KND):
        mean_KnD = mean_KND[:, rows].double()
        error += (mean_KnD - target_ND[rows]).square().sum().item()
        spread += _spread(mean_KnD)
    return _about_mean(error / mean_KND.numel(), spread, len(mean_KND), target_ND.numel())


def brier(log_probs_KNC: Tensor, target_N: Tensor) -> Parts:
    """Brier score, sum over the classes and mean over rows.

    Raises:
        EnsembleError: as ``squares``.
    """
    _check(log_probs_KNC[..., 0], target_N)
    num_members, num_rows, _ = log_probs_KNC.shape
    total = spread = 0.0
    for rows in _pieces(log_probs_KNC):
        probs_KnC = log_probs_KNC[:, rows].double().exp()
        truth_Kn1 = probs_KnC.gather(2, target_N[rows].long().expand(num_members, -1)[..., None])
        total += (probs_KnC.square().sum() - 2 * truth_Kn1.sum()).item()
        spread += _spread(probs_KnC)
    return _about_mean(total / (num_members * num_rows) + 1, spread, num_members, num_rows)


def log_loss(log_probs_KNC: Tensor, target_N: Tensor) -> Parts | None:
    """Negative log likelihood in nats; None where some probability is 0, for then it is infinite.

    The plain variance, the mean divergence of the members from their centre, is minus the log of what normalises it.

    Raises:
        EnsembleError: as ``squares``.
    """
    _check(log_probs_KNC[..., 0], target_N)
    num_members, num_rows, _ = log_probs_KNC.shape
    truth = variance = 0.0
    for rows in _pieces(log_probs_KNC):
        some_KnC = log_probs_KNC[:, rows].double()
        if not some_KnC.isfinite().all():
            return None
        truth += some_KnC.gather(2, target_N[rows].long().expand(num_members, -1)[..., None]).sum().item()
        total_nC = some_KnC.sum(0)
        plain = _divergence(total_nC / num_members)
        without = [_divergence((total_nC - own_nC) / (num_members - 1)) for own_nC in some_KnC]
        variance += num_members * plain - (num_members - 1) * sum(without) / num_members
    error, variance = -truth / (num_members * num_rows), variance / num_rows
    return Parts(error, error - variance, variance)


def decompose(task: Task, members: Mapping[str, Tensor], target: Tensor) -> dict[str, Any]:
    """The parts of each loss, by its name: of numbers ``squared_error``, of classes ``brier`` and ``nll``.

    Args:
        members: ``mean`` [K, N, D], or ``log_probs`` [K, N, C]; at least two.
    """
    if task == "regression":
        return {"squared_error": asdict(squares(members["mean"], target))}
    found = {
        "brier": brier(members["log_probs"], target),
        "nll": log_loss(members["log_probs"], target),
    }
    return {name: asdict(parts) for name, parts in found.items() if parts is not None}


def _pieces(values_KNX: Tensor) -> list[slice]:
    """The rows in order, about ``NUMBERS`` of the members' numbers together."""
    step = max(1, NUMBERS // max(1, values_KNX[:, :1].numel()))
    return [slice(start, start + step) for start in range(0, values_KNX.shape[1], step)]


def _spread(values_KnX: Tensor) -> float:
    """Sum of the squared distances from the members' mean."""
    return (values_KnX - values_KnX.mean(0)).square().sum().item()


def _about_mean(error: float, spread: float, num_members: int, count: int) -> Parts:
    """Split about the mean.

    Args:
        count: what the sum of one member's squares is divided by.
    """
    variance = spread / (num_members - 1) / count
    return Parts(error, error - variance, variance)


def _divergence(mean_log_nC: Tensor) -> float:
    """Sum over the rows of the members' mean divergence from their normalised geometric mean."""
    return -torch.logsumexp(mean_log_nC, dim=1).sum().item()


def _check(values_KN: Tensor, target: Tensor) -> None:
    if values_KN.shape[1:] != target.shape or 0 in values_KN.shape:
        raise EnsembleError(
            f"the predictions have shape {list(values_KN.shape)} and the targets {list(target.shape)}; predictions "
            "are the targets' shape with the members before it."
        )
    if len(values_KN) < 2:
        raise EnsembleError("variance over trainings needs two members or more.")
