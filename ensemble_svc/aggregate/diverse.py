"""Choosing members that are good and differ from one another.

Shapes: K members, N rows, C classes, D targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ensemble_svc.aggregate.selection import Selection, check_size, equal_picks
from ensemble_svc.errors import EnsembleError


def diverse(error_K: Tensor, disagreement_KK: Tensor, size: int, *, diversity: float) -> Selection:
    """Accurate members that differ: each next one has the least error less what it differs by.

    The first has the least error; then, with S the chosen so far, the member k not in S with the least
    ``error_k - diversity * mean over j in S of disagreement_kj`` (maximal marginal relevance, Carbonell &
    Goldstein 1998). With squared errors, squared differences and ``diversity`` m / (m + 1), m chosen so far,
    that would be the member that most lowers the ensemble's own squared error (Krogh & Vedelsby 1995); 0
    takes the best alone. Equal weights; of equals the first. ``scores`` holds the values that were least.

    Args:
        error_K: of each member alone on the selection rows; less is better.
        disagreement_KK: between each pair, in the units of the error.
        size: number of members chosen.
        diversity: weight of the disagreement, from 0.

    Raises:
        EnsembleError: shapes that do not match, numbers that are not finite, sizes out of range.
    """
    _check_diverse(error_K, disagreement_KK, size, diversity)
    error_K, disagreement_KK = error_K.double(), disagreement_KK.double()
    sum_K = torch.zeros_like(error_K)
    picks: list[int] = []
    scores: list[float] = []
    for count in range(size):
        value_K = error_K - diversity * sum_K / max(count, 1)
        value_K[picks] = math.inf
        picks.append(int(value_K.argmin()))
        scores.append(value_K[picks[-1]].item())
        sum_K += disagreement_KK[picks[-1]]
    return Selection(equal_picks(picks, len(error_K)), tuple(picks), tuple(scores))


def class_errors(log_probs_KNC: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor]:
    """Each member's share of wrong rows [K], and the share of rows on which two say different classes [K, K]."""
    said_KN = log_probs_KNC.argmax(2)
    error_K = (said_KN != target_N).double().mean(1)
    return error_K, torch.stack([(said_KN != said_N).double().mean(1) for said_N in said_KN])


def number_errors(mean_KND: Tensor, target_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Each member's squared error [K], and the squared distance of two members' means [K, K].

    Mean over rows and targets, in each target's variance over the rows: 1 is about what its mean would err, so that
    targets of any unit count alike, and beside shares of wrong rows. A target that never varies is left in its unit.
    """
    target_ND = target_ND.double()
    unit_D = target_ND.var(0, correction=0).sqrt()
    unit_D = torch.where(unit_D > 0, unit_D, 1.0)
    scaled_KND = mean_KND.double() / unit_D
    apart = [(scaled_KND - one_ND).square().mean((1, 2)) for one_ND in scaled_KND]
    return (scaled_KND - target_ND / unit_D).square().mean((1, 2)), torch.stack(apart)


def errors_of(members: Mapping[str, Tensor], target: Tensor) -> tuple[Tensor, Tensor]:
    """The errors [K] and disagreements [K, K] of members of either kind.

    Args:
        members: ``log_probs`` [K, N, C], or ``mean`` [K, N, D].
        target: class numbers [N], or numbers [N, D].
    """
    if "log_probs" in members:
        return class_errors(members["log_probs"], target)
    return number_errors(members["mean"], target)


def _check_diverse(error_K: Tensor, disagreement_KK: Tensor, size: int, diversity: float) -> None:
    num_members = len(error_K) if error_K.ndim == 1 else 0
    if num_members == 0 or disagreement_KK.shape != (num_members, num_members):
        raise EnsembleError(
            f"the errors have shape {list(error_K.shape)} and the disagreements "
            f"{list(disagreement_KK.shape)}; they must be [members] and [members, members]."
        )
    if not (error_K.isfinite().all() and disagreement_KK.isfinite().all()):
        raise EnsembleError("the errors and disagreements are not all finite; leave such members out.")
    if not (math.isfinite(diversity) and diversity >= 0):
        raise EnsembleError(f"diversity is {diversity}; it is a number from 0.")
    check_size("size", size, num_members)
