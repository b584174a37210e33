"""How the members differ, and what of the ensemble's error that explains.

Shapes: K members, N examples, C classes, D targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError


@dataclass(frozen=True)
class Ambiguity:
    """``ensemble = members - ambiguity``, exactly (Krogh & Vedelsby 1995)."""

    ensemble: float
    """Squared error of the members' weighted mean, mean over rows and targets."""
    members: float
    """Weighted mean of the members' squared errors."""
    ambiguity: float
    """Weighted mean of the members' squared distances from their mean: what disagreement buys."""


@dataclass(frozen=True)
class BiasVariance:
    """``error = bias + variance``, exactly, of a single member on these rows."""

    error: float
    """Mean error of the members."""
    bias: float
    """Error of what they mean: their average, or the class most of them say. Holds the noise of the labels."""
    variance: float
    """What single members add to it. Negative where members that err against the majority put it right."""


def disagreement(predicted_KN: Tensor) -> Tensor:
    """Share of the rows on which each pair of members predicts different classes, [K, K] float64.

    Raises:
        EnsembleError: not [members, rows].
    """
    return disagreement_of([predicted_KN])


def disagreement_of(pieces: Iterable[Tensor]) -> Tensor:
    """As ``disagreement``, of rows that come a piece [K, n] at a time."""
    total_KK, num_rows = torch.zeros(1, dtype=torch.int64), 0
    for said_Kn in pieces:
        _check(said_Kn, "predicted classes")
        total_KK = total_KK + torch.stack([(said_Kn != member_n).sum(dim=1) for member_n in said_Kn])
        num_rows += said_Kn.shape[1]
    return total_KK.double() / num_rows


def distance(mean_KND: Tensor) -> Tensor:
    """Mean squared difference of each pair of members' predictions, over rows and targets, [K, K] float64.

    Raises:
        EnsembleError: not [members, rows, targets].
    """
    return distance_of([mean_KND])


def distance_of(pieces: Iterable[Tensor]) -> Tensor:
    """As ``distance``, of rows that come a piece [K, n, D] at a time."""
    total_KK, count = torch.zeros(1, dtype=torch.float64), 0
    for mean_KnD in pieces:
        _check(mean_KnD.flatten(1) if mean_KnD.ndim == 3 else mean_KnD[:0], "means")
        wide_KnD = mean_KnD.double()
        total_KK = total_KK + torch.stack([(wide_KnD - m_nD).square().sum((1, 2)) for m_nD in wide_KnD])
        count += wide_KnD[0].numel()
    return total_KK / count


def q_statistic(correct_KN: Tensor) -> Tensor:
    """Yule's Q of each pair's being right, [K, K] from -1 to 1 (Kuncheva & Whitaker 2003).

    0 for members that err independently, 1 if they are right on the same rows. NaN where it says nothing:
    a pair of which one is always right, or always wrong.

    Raises:
        EnsembleError: not [members, rows].
    """
    _check(correct_KN, "marks of correctness")
    right_KN, wrong_KN = correct_KN.double(), 1 - correct_KN.double()
    same_KK = (right_KN @ right_KN.T) * (wrong_KN @ wrong_KN.T)
    other_KK = (right_KN @ wrong_KN.T) * (wrong_KN @ right_KN.T)
    return (same_KK - other_KK) / (same_KK + other_KK)


def error_correlation(error_KN: Tensor) -> Tensor:
    """Pearson's correlation of each pair of members' errors, [K, K]; NaN for a member whose error is constant.

    Args:
        error_KN: 0 or 1 for a wrong class, or target minus mean.

    Raises:
        EnsembleError: not [members, rows].
    """
    return correlation_of(lambda: [error_KN])


def correlation_of(pieces: Callable[[], Iterable[Tensor]]) -> Tensor:
    """As ``error_correlation``, of rows that come a piece [K, n] at a time, twice."""
    sum_K, num_rows = torch.zeros(1, dtype=torch.float64), 0
    for error_Kn in pieces():
        _check(error_Kn, "errors")
        sum_K, num_rows = sum_K + error_Kn.double().sum(dim=1), num_rows + error_Kn.shape[1]
    products_KK = torch.zeros(len(sum_K), len(sum_K), dtype=torch.float64, device=sum_K.device)
    squares_K = torch.zeros_like(sum_K)
    for error_Kn in pieces():
        centred_Kn = error_Kn.double() - (sum_K / num_rows)[:, None]
        products_KK += centred_Kn @ centred_Kn.T
        squares_K += centred_Kn.square().sum(dim=1)
    spread_K = squares_K.sqrt()
    return (products_KK / spread_K[:, None] / spread_K).clamp(-1, 1)


def mean_over_pairs(values_KK: Tensor) -> float:
    """Mean over the pairs of different members, those that are NaN left out; NaN where none is left."""
    pairs = torch.triu_indices(len(values_KK), len(values_KK), offset=1)
    return values_KK[pairs[0], pairs[1]].nanmean().item()


def ambiguity(mean_KND: Tensor, target_ND: Tensor, weights_K: Tensor | None = None) -> Ambiguity:
    """The ensemble's squared error as the members' less their disagreement.

    Args:
        mean_KND: in the target's units.
        weights_K: sum 1; equal when absent.

    Raises:
        EnsembleError: shapes that do not match.
    """
    _check_targets(mean_KND.shape, target_ND, 3)
    num_members = len(mean_KND)
    weights_K = (
        torch.full((num_members,), 1 / num_members) if weights_K is None else torch.as_tensor(weights_K)
    )
    weights_K = weights_K.to(mean_KND.device, torch.float64)
    if weights_K.shape != (num_members,) or not (weights_K.sum() - 1).abs() < 1e-5:
        raise EnsembleError(f"the weights must be {num_members} numbers of sum 1.")
    weights_K = weights_K / weights_K.sum()
    pairs = list(zip(weights_K.tolist(), mean_KND, strict=True))
    mean_ND = torch.zeros_like(mean_KND[0], dtype=torch.float64)
    for weight, member_ND in pairs:
        mean_ND.add_(member_ND.double(), alpha=weight)
    return Ambiguity(
        ensemble=(mean_ND - target_ND).square().mean().item(),
        members=sum(w * (m_ND.double() - target_ND).square().mean().item() for w, m_ND in pairs),
        ambiguity=sum(w * (m_ND.double() - mean_ND).square().mean().item() for w, m_ND in pairs),
    )


def bias_variance(mean_KND: Tensor, target_ND: Tensor) -> BiasVariance:
    """Squared error of members trained on different bags, split about their mean (Geman et al. 1992).

    Raises:
        EnsembleError: shapes that do not match.
    """
    parts = ambiguity(mean_KND, target_ND)
    return BiasVariance(error=parts.members, bias=parts.ensemble, variance=parts.ambiguity)


def bias_variance_classes(predicted_KN: Tensor, target_N: Tensor) -> BiasVariance:
    """Error rate of members trained on different bags, split about their majority (Domingos 2000).

    The bias is the error of the class that most members predict (of equals the lowest number); the
    variance is what single members add to it: their departures from the majority where it is right, less
    those that are right where it is wrong.

    Raises:
        EnsembleError: shapes that do not match.
    """
    _check_targets(predicted_KN.shape, target_N, 2)
    majority_N = _majority(predicted_KN)
    error = (predicted_KN != target_N).double().mean().item()
    bias = (majority_N != target_N).double().mean().item()
    return BiasVariance(error, bias, error - bias)


def _majority(predicted_KN: Tensor) -> Tensor:
    num_classes = int(predicted_KN.max()) + 1
    votes_NC = torch.zeros(predicted_KN.shape[1], num_classes, dtype=torch.int64, device=predicted_KN.device)
    for predicted_N in predicted_KN.long():
        votes_NC.scatter_add_(1, predicted_N[:, None], torch.ones_like(predicted_N[:, None]))
    return votes_NC.argmax(dim=1)


def _check(values_KN: Tensor, what: str) -> None:
    if values_KN.ndim != 2 or 0 in values_KN.shape:
        raise EnsembleError(
            f"the {what} have shape {list(values_KN.shape)}; the first axes must be [members, rows], not empty."
        )


def _check_targets(shape: torch.Size, target: Tensor, rank: int) -> None:
    if len(shape) != rank or 0 in shape or target.shape != shape[1:]:
        raise EnsembleError(
            f"the predictions have shape {list(shape)} and the targets {list(target.shape)}; predictions are "
            "the targets' shape with the members before it."
        )
