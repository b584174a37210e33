"""The members as a greedy selection sees them: what the picks so far would score with each one more.

A pool keeps a running *total* of what the picks add up to, so a trial of one more member costs one pass over
that member and not over all the picks: O(picks x members x rows x classes) for a whole selection, with one or
two [N, C] arrays of float64 besides the members.

Which total depends on the score. The negative log likelihood of a mixture needs only what each member gives
the truth, [K, N], which for classes is C times less to go over; anything else needs the whole prediction.

Shapes: K members, N held-out rows, C classes, D targets; V stands for C or D.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ensemble_svc.aggregate.checks import check_gaussians, check_log_probs
from ensemble_svc.aggregate.likelihood import check_likelihood
from ensemble_svc.errors import EnsembleError

Measure = Callable[[Tensor], float]
"""From the picks' mean prediction [N, V] in float64 (probabilities, or means) to their score."""


class Pool(Protocol):
    """Candidates, and the score of any multiset of them grown one at a time."""

    @property
    def num_members(self) -> int:
        """Number of candidates, K."""

    @property
    def higher_is_better(self) -> bool:
        """The direction of the score."""

    def empty(self) -> Tensor:
        """The total of no picks."""

    def add(self, total: Tensor, member: int) -> Tensor:
        """The total with one more pick; the argument is left as it was."""

    def trial(self, total: Tensor, size: int, among: Sequence[int]) -> list[float]:
        """Score of the ``size`` picks of ``total`` joined by each candidate of ``among``."""


@dataclass(frozen=True)
class LikelihoodPool:
    """Scored by the mixture's negative log likelihood, in nats per row; less is better."""

    log_likelihood_KN: Tensor
    """Log probability or density that each member gave each row's truth (``likelihood.log_likelihood``)."""
    higher_is_better: bool = False

    def __post_init__(self) -> None:
        check_likelihood(self.log_likelihood_KN)

    @property
    def num_members(self) -> int:
        """Number of candidates."""
        return len(self.log_likelihood_KN)

    def empty(self) -> Tensor:
        """Log likelihood of no picks, [N]: -inf."""
        return self.log_likelihood_KN.new_full(self.log_likelihood_KN.shape[1:], -math.inf).double()

    def add(self, total: Tensor, member: int) -> Tensor:
        """Log of the summed likelihoods."""
        return torch.logaddexp(total, self.log_likelihood_KN[member].double())

    def trial(self, total: Tensor, size: int, among: Sequence[int]) -> list[float]:
        """Negative log likelihood of the picks with each candidate."""
        return [math.log(size + 1) - self.add(total, member).mean().item() for member in among]


@dataclass(frozen=True)
class MeanPool:
    """Scored by any function of the picks' mean prediction."""

    members_KNV: Tensor
    """Log probabilities [K, N, C] where ``logarithms``, else means [K, N, D]."""
    measure: Measure
    """From mean probabilities or means, [N, V] float64, to the score."""
    higher_is_better: bool
    logarithms: bool

    def __post_init__(self) -> None:
        if self.logarithms:
            check_log_probs(self.members_KNV)
        else:
            check_gaussians(self.members_KNV, None)

    @property
    def num_members(self) -> int:
        """Number of candidates."""
        return len(self.members_KNV)

    def empty(self) -> Tensor:
        """Zeros, [N, V]."""
        return torch.zeros(self.members_KNV.shape[1:], dtype=torch.float64, device=self.members_KNV.device)

    def add(self, total: Tensor, member: int) -> Tensor:
        """The sum with the member's probabilities or means."""
        return self._into(torch.empty_like(total), total, member)

    def trial(self, total: Tensor, size: int, among: Sequence[int]) -> list[float]:
        """The measure of each mean; it may keep nothing of its argument, which is overwritten."""
        buffer_NV = torch.empty_like(total)
        return [self.measure(self._into(buffer_NV, total, member).div_(size + 1)) for member in among]

    def _into(self, buffer_NV: Tensor, total_NV: Tensor, member: int) -> Tensor:
        buffer_NV.copy_(self.members_KNV[member])
        if self.logarithms:
            buffer_NV.exp_()
        return buffer_NV.add_(total_NV)


def accuracy_pool(log_probs_KNC: Tensor, target_N: Tensor) -> MeanPool:
    """Scored by the share of rows whose most probable class (of equals the first) is the true one.

    Raises:
        EnsembleError: members that are no distributions; not one target per row.
    """
    _check_targets(log_probs_KNC, target_N, target_N.shape[:1])

    def accuracy(mean_NC: Tensor) -> float:
        return (mean_NC.max(dim=-1).indices == target_N).double().mean().item()

    return MeanPool(log_probs_KNC, accuracy, higher_is_better=True, logarithms=True)


def brier_pool(log_probs_KNC: Tensor, target_N: Tensor) -> MeanPool:
    """Scored by the squared distance of the mean probabilities from the one-hot truth, 0 to 2.

    Raises:
        EnsembleError: members that are no distributions; not one target per row.
    """
    _check_targets(log_probs_KNC, target_N, target_N.shape[:1])
    index_N1 = target_N[:, None].long()

    def brier(mean_NC: Tensor) -> float:
        truth_N = mean_NC.gather(1, index_N1)[:, 0]
        return (mean_NC.square().sum() - 2 * truth_N.sum()).item() / len(index_N1) + 1

    return MeanPool(log_probs_KNC, brier, higher_is_better=False, logarithms=True)


def squared_error_pool(mean_KND: Tensor, target_ND: Tensor) -> MeanPool:
    """Scored by the root mean squared error of the picks' mean, in the target's units.

    Raises:
        EnsembleError: members that are not finite; targets of another shape.
    """
    _check_targets(mean_KND, target_ND, mean_KND.shape[1:])

    def rmse(mean_ND: Tensor) -> float:
        return math.sqrt((mean_ND - target_ND).square().mean().item())

    return MeanPool(mean_KND, rmse, higher_is_better=False, logarithms=False)


def _check_targets(members: Tensor, target: Tensor, shape: Sequence[int]) -> None:
    if target.shape != tuple(shape) or members.ndim != 3 or len(target) != members.shape[1]:
        raise EnsembleError(
            f"the targets have shape {list(target.shape)}; these members {list(members.shape)} are of "
            "[members, rows, ...] and need a target for each row."
        )
