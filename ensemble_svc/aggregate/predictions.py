"""From many members' predictions to one: the mixture of what the members say.

An ensemble stands for the mixture of its members' distributions (Lakshminarayanan et al. 2017,
arXiv:1612.01474). For classes that is the mean of the *probabilities*, not of the log probabilities
or the logits. For numbers it is a mixture of Gaussians, which is no Gaussian: its mean and variance
(``mix_gaussians``) describe it, its density (``mixture_log_density``) scores it. Averaging the
members' means and variances apart would lose their disagreement: N(0, 1) and N(10, 1) mix to a
standard deviation of 5.10, not 1.

Laws kept here: an ensemble of one is its member, bit for bit; K copies of a member are that member
(to round-off); members may come in any order; a member of weight 0 has no effect. Sums run
in float64 whatever the members' type, in the order of the members, so the same members give the same
bits. Memory beyond the input is a few [N, C] arrays of float64, however many members there are.

Pure functions of tensors. Nothing here reads a file, a clock or a random number.

Shapes: K members, N examples, C classes, D targets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import reduce

import torch
from torch import Tensor

from ensemble_svc.aggregate.checks import check_gaussians, check_log_probs, member_weights
from ensemble_svc.aggregate.likelihood import log_density
from ensemble_svc.errors import EnsembleError


def combine(
    members: Mapping[str, Tensor], weights_K: Tensor | None = None, *, target_ND: Tensor | None = None
) -> dict[str, Tensor]:
    """The ensemble's prediction from the members', in the form a single member's has.

    Args:
        members: ``log_probs`` [K, N, C], or ``mean`` [K, N, D] with ``log_variance`` [K, N, D] where the
            members have one; other keys are ignored.
        weights_K: non-negative, sum 1; equal when absent.
        target_ND: regression: adds ``log_density`` [N], the mixture's log density at these targets,
            by which the ensemble's negative log likelihood is measured.

    Returns:
        ``log_probs`` [N, C], or ``mean`` and ``log_variance`` [N, D], in the members' number type.

    Raises:
        EnsembleError: members or weights that cannot be combined; the member is named.
    """
    if "log_probs" in members:
        return {"log_probs": average(members["log_probs"], weights_K)}
    if "mean" not in members:
        raise EnsembleError(
            f"the members' predictions hold {', '.join(sorted(members)) or 'nothing'}; "
            "they need log_probs (classification) or mean and log_variance (regression)."
        )
    mean_KND, log_variance_KND = members["mean"], members.get("log_variance")
    if log_variance_KND is None:
        return {"mean": average_means(mean_KND, weights_K)}
    mean_ND, log_variance_ND = mix_gaussians(mean_KND, log_variance_KND, weights_K)
    mixed = {"mean": mean_ND, "log_variance": log_variance_ND}
    if target_ND is not None:
        mixed["log_density"] = mixture_log_density(mean_KND, log_variance_KND, target_ND, weights_K)
    return mixed


def average(
    log_probs_KNC: Tensor, weights_K: Tensor | None = None, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Log of the members' mean probability, the mixture that the ensemble stands for.

    Computed relative to the largest term, so neither a probability of 0 (``-inf``) nor one below the
    smallest float costs any precision; the result is ``-inf`` only where all members of positive
    weight say 0.

    Args:
        log_probs_KNC: each row's ``exp`` sums to 1.
        weights_K: non-negative, sum 1; equal when absent.
        dtype: number type of the result; the members' own when absent.

    Returns:
        Log probabilities, [N, C].

    Raises:
        EnsembleError: weights that do not match K or do not sum to 1; a member with NaN, or whose
            probabilities do not sum to 1.
    """
    check_log_probs(log_probs_KNC)
    weights = member_weights(weights_K, len(log_probs_KNC))
    peak_NC = reduce(torch.maximum, (member_NC for member_NC, _ in _weighted(log_probs_KNC, weights)))
    peak_NC = peak_NC.double().clamp(min=torch.finfo(torch.float64).min)
    total_NC = torch.zeros_like(peak_NC)
    for member_NC, weight in _weighted(log_probs_KNC, weights):
        total_NC.add_((member_NC.double() - peak_NC).exp_(), alpha=weight)
    return (total_NC.log_() + peak_NC).to(dtype or log_probs_KNC.dtype)


def average_means(mean_KND: Tensor, weights_K: Tensor | None = None) -> Tensor:
    """Weighted mean of the members' means, [N, D]: all that can be said when they give no variance."""
    check_gaussians(mean_KND, None)
    return _mean(mean_KND, member_weights(weights_K, len(mean_KND))).to(mean_KND.dtype)


def mix_gaussians(
    mean_KND: Tensor, log_variance_KND: Tensor, weights_K: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and log variance of the mixture of the members' Gaussians (moment matching).

    The variance is the members' mean variance plus the variance of their means, so disagreement
    counts. It is summed in log space about the mixture's mean: no cancellation, no overflow.

    Args:
        mean_KND: in the target's units.
        log_variance_KND: natural log of the variance, in the target's units squared.
        weights_K: non-negative, sum 1; equal when absent.

    Returns:
        Mean and log variance, each [N, D], of the Gaussian with the mixture's first two moments.

    Raises:
        EnsembleError: shapes or weights that do not match; a member that is not finite.
    """
    check_gaussians(mean_KND, log_variance_KND)
    return _moments(mean_KND, log_variance_KND, member_weights(weights_K, len(mean_KND)))


def equal_moments(mean_KND: Tensor, log_variance_KND: Tensor) -> tuple[Tensor, Tensor]:
    """As ``mix_gaussians`` with equal weights, of members that were checked before."""
    return _moments(mean_KND, log_variance_KND, [1 / len(mean_KND)] * len(mean_KND))


def _moments(mean_KND: Tensor, log_variance_KND: Tensor, weights: list[float]) -> tuple[Tensor, Tensor]:
    mean_ND = _mean(mean_KND, weights)
    spread = (
        torch.logaddexp(log_variance_ND.double(), 2 * (member_ND.double() - mean_ND).abs().log())
        + math.log(weight)
        for (member_ND, weight), (log_variance_ND, _) in zip(
            _weighted(mean_KND, weights), _weighted(log_variance_KND, weights), strict=True
        )
    )
    return mean_ND.to(mean_KND.dtype), reduce(torch.logaddexp, spread).to(log_variance_KND.dtype)


def mixture_log_density(
    mean_KND: Tensor, log_variance_KND: Tensor, target_ND: Tensor, weights_K: Tensor | None = None
) -> Tensor:
    """Log density of the mixture of Gaussians at each row's target; its negative is the row's NLL.

    A member's density of a row is the product over the D targets; the mixture is over whole members,
    so it is not the product of the targets' mixtures.

    Returns:
        [N] float64, per unit of the targets.

    Raises:
        EnsembleError: shapes or weights that do not match; a member that is not finite.
    """
    check_gaussians(mean_KND, log_variance_KND)
    if target_ND.shape != mean_KND.shape[1:]:
        raise EnsembleError(
            f"the targets have shape {list(target_ND.shape)}; "
            f"these members need {list(mean_KND.shape[1:])}, [rows, targets]."
        )
    weights = member_weights(weights_K, len(mean_KND))
    return reduce(
        torch.logaddexp,
        (
            log_density(mean_KND[k], log_variance_KND[k], target_ND) + math.log(weight)
            for k, weight in enumerate(weights)
            if weight > 0
        ),
    )


def _mean(values_KND: Tensor, weights: list[float]) -> Tensor:
    total_ND = torch.zeros_like(values_KND[0], dtype=torch.float64)
    for member_ND, weight in _weighted(values_KND, weights):
        total_ND.add_(member_ND.double(), alpha=weight)
    return total_ND


def _weighted(stack: Tensor, weights: list[float]) -> Iterator[tuple[Tensor, float]]:
    """Members that count; one of weight 0 would turn an infinite term into NaN."""
    return ((member, weight) for member, weight in zip(stack, weights, strict=True) if weight > 0)
