"""What members must be before they may be combined: same shapes, real distributions, true weights.

A prediction that is not a distribution would give an average that looks like one, so each member is
looked at and the first that is wrong is named by its position.

Shapes: K members, N examples, C classes, D targets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError

NORMALISATION_TOLERANCE = 1e-3
"""How far the log of a row's probabilities' sum may be from 0: float32 round-off over many classes."""
ROWS = 1 << 14
"""Looked at together."""
WEIGHT_TOLERANCE = 1e-5
"""How far the weights' sum may be from 1: float32 round-off over many members."""


def member_weights(weights_K: Tensor | Sequence[float] | None, num_members: int) -> list[float]:
    """The members' shares in float64, scaled to sum to 1 exactly; equal shares when none are given.

    Raises:
        EnsembleError: not one weight per member, a weight that is negative or not finite, or a sum
            that is not 1.
    """
    if weights_K is None:
        return [1 / num_members] * num_members
    weights = torch.as_tensor(weights_K, dtype=torch.float64)
    if weights.shape != (num_members,):
        raise EnsembleError(
            f"the weights have shape {list(weights.shape)}; {num_members} members need [{num_members}]."
        )
    shares: list[float] = weights.tolist()
    for k, share in enumerate(shares):
        if not (math.isfinite(share) and share >= 0):
            raise EnsembleError(f"the weight of member {k} is {share}; a weight is a number from 0 to 1.")
    total = math.fsum(shares)
    if abs(total - 1) > WEIGHT_TOLERANCE:
        raise EnsembleError(f"the weights sum to {total:.6g}, not to 1; divide each by their sum.")
    return [share / total for share in shares]


def check_log_probs(log_probs_KNC: Tensor) -> None:
    """Refuse what is not K x N distributions over C classes; probability 0 (-inf) is allowed.

    Raises:
        EnsembleError: naming the shape, or the member and its first wrong row.
    """
    check_stack("log_probs", log_probs_KNC, "members, rows, classes")
    for k, member_NC in enumerate(log_probs_KNC):
        if all(_plainly_normalised(some_nC) for some_nC in member_NC.split(ROWS)):
            continue
        log_total_N = torch.logsumexp(member_NC, dim=-1)
        wrong_N = ~(log_total_N.abs() <= NORMALISATION_TOLERANCE)
        if wrong_N.any():
            row = int(wrong_N.nonzero()[0])
            raise EnsembleError(not_normalised(k, row, log_total_N[row].exp().item()))


def _plainly_normalised(log_probs_NC: Tensor) -> bool:
    """Whether the probabilities sum to 1 well within the tolerance; a quarter of the time of their logarithm."""
    if not len(log_probs_NC):
        return True
    probs_NC = log_probs_NC.exp()
    low, high = (end.item() for end in torch.aminmax(probs_NC @ probs_NC.new_ones(probs_NC.shape[1])))
    return low >= 1 - NORMALISATION_TOLERANCE / 2 and high <= 1 + NORMALISATION_TOLERANCE / 2


def check_gaussians(mean_KND: Tensor, log_variance_KND: Tensor | None) -> None:
    """Refuse what is not K x N x D finite means and, where given, log variances of the same shape.

    Raises:
        EnsembleError: naming the shapes, or the member and its first wrong row.
    """
    _check_finite("mean", mean_KND)
    if log_variance_KND is None:
        return
    if log_variance_KND.shape != mean_KND.shape:
        raise EnsembleError(
            f"mean has shape {list(mean_KND.shape)} and log_variance {list(log_variance_KND.shape)}; "
            "both are [members, rows, targets]."
        )
    _check_finite("log_variance", log_variance_KND)


def check_stack(name: str, values: Tensor, axes: str) -> None:
    """Refuse what is not a stack of members' floating point predictions.

    Raises:
        EnsembleError: naming the shape or the type.
    """
    if values.ndim != 3 or values.shape[0] == 0 or values.shape[2] == 0:
        raise EnsembleError(
            f"{name} has shape {list(values.shape)}; it must be [{axes}], none of them empty."
        )
    if not values.is_floating_point():
        raise EnsembleError(f"{name} holds {values.dtype}; it must hold floating point numbers.")


def _check_finite(name: str, values_KND: Tensor) -> None:
    check_stack(name, values_KND, "members, rows, targets")
    for k, member_ND in enumerate(values_KND):
        wrong_N = ~member_ND.isfinite().all(dim=-1)
        if wrong_N.any():
            row = int(wrong_N.nonzero()[0])
            raise EnsembleError(
                f"member {k}: {name} is {member_ND[row].tolist()} in row {row}; every one must be finite. "
                "Leave this member out, or train it again."
            )


def not_normalised(member: int, row: int, total: float) -> str:
    if math.isnan(total):
        return f"member {member}: log_probs is NaN in row {row}. Leave this member out, or train it again."
    return (
        f"member {member}: its probabilities sum to {total:.6g} in row {row}, not to 1. "
        "Pass log_softmax of the network's outputs, not the outputs themselves."
    )
