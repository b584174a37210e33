"""What each member gave the truth, row by row: all that a mixture's likelihood is a function of.

The log likelihood of the mixture at a row is log of sum over k of w_k exp(log_likelihood_kn), for classes and
for Gaussians alike, so selection, weights and out-of-bag scores by likelihood need [K, N] and nothing else.

Shapes: K members, N rows, C classes, D targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ensemble_svc.aggregate.checks import check_gaussians, check_log_probs
from ensemble_svc.errors import EnsembleError

LOG_2_PI = math.log(2 * math.pi)


def log_likelihood(members: Mapping[str, Tensor], target: Tensor) -> Tensor:
    """Log probability of each row's class, or log density at its targets, by each member: [K, N] float64.

    Args:
        members: ``log_probs`` [K, N, C], or ``mean`` and ``log_variance`` [K, N, D].
        target: class numbers [N]; or numbers [N, D]. A density is of the row's D targets together.

    Raises:
        EnsembleError: members without a likelihood, members that cannot be combined, targets that are not
            theirs.
    """
    if "log_probs" in members:
        return _of_classes(members["log_probs"], target)
    if "mean" in members and "log_variance" in members:
        return _of_numbers(members["mean"], members["log_variance"], target)
    raise EnsembleError(
        f"the members' predictions hold {', '.join(sorted(members)) or 'nothing'}; a likelihood needs "
        "log_probs, or mean and log_variance."
    )


def check_likelihood(log_likelihood_KN: Tensor) -> None:
    """Refuse what is not [K, N] log likelihoods; -inf (a truth thought impossible) is allowed.

    Raises:
        EnsembleError: naming the shape, or the member and its first wrong row.
    """
    if (
        log_likelihood_KN.ndim != 2
        or 0 in log_likelihood_KN.shape
        or not log_likelihood_KN.is_floating_point()
    ):
        raise EnsembleError(
            f"the log likelihoods are {log_likelihood_KN.dtype} of shape {list(log_likelihood_KN.shape)}; "
            "they must be floating point numbers of [members, rows], none of them empty."
        )
    wrong_KN = log_likelihood_KN.isnan() | log_likelihood_KN.isposinf()
    if wrong_KN.any():
        member, row = wrong_KN.nonzero()[0].tolist()
        value = log_likelihood_KN[member, row].item()
        raise EnsembleError(f"member {member}: the log likelihood of row {row} is {value}. Leave it out.")


def _of_classes(log_probs_KNC: Tensor, target_N: Tensor) -> Tensor:
    check_log_probs(log_probs_KNC)
    num_classes = log_probs_KNC.shape[2]
    if target_N.shape != log_probs_KNC.shape[1:2] or target_N.is_floating_point():
        raise EnsembleError(
            f"the targets are {target_N.dtype} of shape {list(target_N.shape)}; these members need class "
            f"numbers of shape {list(log_probs_KNC.shape[1:2])}."
        )
    if len(target_N) and not (int(target_N.min()) >= 0 and int(target_N.max()) < num_classes):
        raise EnsembleError(
            f"the targets run from {int(target_N.min())} to {int(target_N.max())}; {num_classes} classes are "
            f"0 to {num_classes - 1}."
        )
    index_N1 = target_N.long()[:, None]
    return torch.stack([member_NC.gather(1, index_N1)[:, 0].double() for member_NC in log_probs_KNC])


def _of_numbers(mean_KND: Tensor, log_variance_KND: Tensor, target_ND: Tensor) -> Tensor:
    check_gaussians(mean_KND, log_variance_KND)
    if target_ND.shape != mean_KND.shape[1:]:
        raise EnsembleError(
            f"the targets have shape {list(target_ND.shape)}; these members need {list(mean_KND.shape[1:])}."
        )
    pairs = zip(mean_KND, log_variance_KND, strict=True)
    return torch.stack([log_density(mean_ND, spread_ND, target_ND) for mean_ND, spread_ND in pairs])


def log_density(mean_ND: Tensor, log_variance_ND: Tensor, target_ND: Tensor) -> Tensor:
    """Log density of one Gaussian per row at the row's targets together, [N] float64."""
    log_variance_ND = log_variance_ND.double()
    error_ND = (target_ND.double() - mean_ND.double()) * (-0.5 * log_variance_ND).exp()
    return -0.5 * (LOG_2_PI + log_variance_ND + error_ND.square()).sum(dim=-1)
