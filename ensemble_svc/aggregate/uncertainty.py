"""How sure the ensemble is of each row, and how much of its doubt is the members' disagreement.

Total uncertainty is what the ensemble's own prediction says; *aleatoric* is what each member thinks is
noise, on average; *epistemic* is what is left, and comes only from members that disagree, so more data
could remove it. Law: total = aleatoric + epistemic, row by row.

For classes these are entropies in nats (Depeweg et al. 2018, arXiv:1710.07283): entropy of the mean
prediction = mean entropy of the members + mutual information of the label and the member. For numbers
they are variances, by the law of total variance.

Everything is summed and returned in float64. The first axis is always the members'.

Shapes: K members, N examples, C classes, D targets.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ensemble_svc.aggregate.checks import check_gaussians, check_log_probs, member_weights
from ensemble_svc.aggregate.predictions import average


class Variance(NamedTuple):
    """Parts of the ensemble's variance, each [N, D] float64, in the target's units squared."""

    total: Tensor
    """Variance of the mixture: aleatoric + epistemic."""
    aleatoric: Tensor
    """Mean of the members' variances."""
    epistemic: Tensor
    """Variance of the members' means."""


def entropy(log_probs_KNC: Tensor, weights_K: Tensor | None = None) -> Tensor:
    """Entropy of the ensemble's prediction: total uncertainty, [N] in nats, from 0 to log C.

    Raises:
        EnsembleError: members or weights that cannot be combined.
    """
    return _entropy(average(log_probs_KNC, weights_K, dtype=torch.float64))


def expected_entropy(log_probs_KNC: Tensor, weights_K: Tensor | None = None) -> Tensor:
    """Mean of the members' own entropies: aleatoric uncertainty, [N] in nats, from 0 to log C.

    Raises:
        EnsembleError: members or weights that cannot be combined.
    """
    check_log_probs(log_probs_KNC)
    weights = member_weights(weights_K, len(log_probs_KNC))
    total_N = torch.zeros(log_probs_KNC.shape[1], dtype=torch.float64, device=log_probs_KNC.device)
    for member_NC, weight in zip(log_probs_KNC, weights, strict=True):
        total_N += weight * _entropy(member_NC.double())
    return total_N


def mutual_information(log_probs_KNC: Tensor, weights_K: Tensor | None = None) -> Tensor:
    """Mean divergence of the members from the ensemble: epistemic uncertainty, [N] in nats.

    Information that the label would give about which member is right: ``entropy`` minus
    ``expected_entropy``, to within 1e-15 or so. From 0 (copies) to log K.

    Raises:
        EnsembleError: members or weights that cannot be combined.
    """
    return (entropy(log_probs_KNC, weights_K) - expected_entropy(log_probs_KNC, weights_K)).clamp(min=0)


def variance(mean_KND: Tensor, log_variance_KND: Tensor, weights_K: Tensor | None = None) -> Variance:
    """Variance of the mixture of the members' Gaussians, in its two parts.

    Raises:
        EnsembleError: shapes or weights that do not match; a member that is not finite.
    """
    check_gaussians(mean_KND, log_variance_KND)
    shares = mean_KND.new_tensor(member_weights(weights_K, len(mean_KND)), dtype=torch.float64)[:, None, None]
    mean_ND = (shares * mean_KND).sum(dim=0)
    aleatoric_ND = (shares * log_variance_KND.double().exp()).sum(dim=0)
    epistemic_ND = (shares * (mean_KND - mean_ND).square()).sum(dim=0)
    return Variance(aleatoric_ND + epistemic_ND, aleatoric_ND, epistemic_ND)


def _entropy(log_probs_NC: Tensor) -> Tensor:
    return torch.special.entr(log_probs_NC.exp()).sum(dim=-1)
