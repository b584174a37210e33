"""The equal mixtures of many subsets of the same members.

What each member says is turned into a number relative to the largest of any member once; a subset's sum is then a row
of a matrix product: who is in it, times those numbers. Where a whole subset lies so far below the others that its sum
would be lost, it is summed by itself. So each mixture is that of ``predictions.combine``, to round-off in float64.

Members are not looked at again for each subset: they are to be checked by whoever has them, once.

Memory beyond the input: 8 bytes for each of the members' numbers, and for each of the result's.

Shapes: P subsets, K members, N rows, C classes, D targets, V numbers of a member.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ensemble_svc.aggregate.likelihood import log_density
from ensemble_svc.aggregate.predictions import equal_moments

Subset = tuple[int, ...]
"""Positions of members, at least one."""
Mixed = Callable[[Sequence[Subset]], dict[str, Tensor]]
"""From subsets to the prediction of each, stacked [P, N, …]."""
TINY = 1e-280
"""A sum below this has lost digits, or is no longer there at all."""


def mixtures(members: Mapping[str, Tensor], target: Tensor) -> Mixed:
    """The mixture of any subset of members.

    Args:
        members: checked; ``log_probs`` [K, N, C], or ``mean`` and, where there is one, ``log_variance`` [K, N, D].
        target: of regression [N, D], whose ``log_density`` [N] is given where there are variances.

    Returns:
        From subsets to ``log_probs`` [P, N, C], or ``mean``, ``log_variance`` [P, N, D] and ``log_density`` [P, N].
    """
    if "log_probs" in members:
        mean = log_means(members["log_probs"])
        return lambda subsets: {"log_probs": mean(subsets)}
    return _of_numbers(members["mean"], members.get("log_variance"), target)


def log_means(logs_KX: Tensor) -> Callable[[Sequence[Subset]], Tensor]:
    """From subsets to the log of the mean of their exponentials, [P, …] in the members' number type.

    Args:
        logs_KX: [K, …], ``-inf`` for a probability of 0. A subset of one is its member, bit for bit.
    """
    shape, dtype = logs_KX.shape[1:], logs_KX.dtype
    logs_KV = logs_KX.flatten(1)
    peak_V = logs_KV.amax(dim=0).double().clamp(min=torch.finfo(torch.float64).min)
    shares_KV = (logs_KV.double() - peak_V).exp_()

    def of(subsets: Sequence[Subset]) -> Tensor:
        weights_PK = _weights(subsets, shares_KV)
        mean_PV = weights_PK @ shares_KV
        lost_PV = mean_PV < TINY
        found_PV = mean_PV.log_().add_(peak_V).to(dtype)
        some_lost = bool(lost_PV.any())
        for p, subset in enumerate(subsets):
            if len(subset) == 1:
                found_PV[p] = logs_KV[subset[0]]
            elif some_lost and bool(lost_PV[p].any()):
                found_PV[p, lost_PV[p]] = _alone(logs_KV[list(subset)][:, lost_PV[p]]).to(dtype)
        return found_PV.unflatten(1, shape)

    return of


def _of_numbers(mean_KND: Tensor, log_variance_KND: Tensor | None, target_ND: Tensor) -> Mixed:
    if log_variance_KND is None:
        wide_KV = mean_KND.double().flatten(1)

        def means(subsets: Sequence[Subset]) -> dict[str, Tensor]:
            mean_PV = _weights(subsets, wide_KV) @ wide_KV
            return {"mean": mean_PV.unflatten(1, mean_KND.shape[1:]).to(mean_KND.dtype)}

        return means
    pairs = zip(mean_KND, log_variance_KND, strict=True)
    density = log_means(torch.stack([log_density(mean, spread, target_ND) for mean, spread in pairs]))

    def moments(subsets: Sequence[Subset]) -> dict[str, Tensor]:
        each = [equal_moments(mean_KND[list(some)], log_variance_KND[list(some)]) for some in subsets]
        mean_PND, log_variance_PND = (torch.stack(part) for part in zip(*each, strict=True))
        return {"mean": mean_PND, "log_variance": log_variance_PND, "log_density": density(subsets)}

    return moments


def _weights(subsets: Sequence[Subset], like_KV: Tensor) -> Tensor:
    weights_PK = torch.zeros(len(subsets), len(like_KV), dtype=torch.float64)
    for p, subset in enumerate(subsets):
        weights_PK[p, list(subset)] = 1 / len(subset)
    return weights_PK.to(like_KV.device)


def _alone(logs_SV: Tensor) -> Tensor:
    return torch.logsumexp(logs_SV.double(), dim=0) - math.log(len(logs_SV))
