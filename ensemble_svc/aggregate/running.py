"""Combining members a few at a time: the ensemble's prediction from a running sum of bounded size.

Each value here is what the members so far add up to. ``add`` takes the next ones (any number of them) and
returns the new sum, ``result`` is the ensemble's prediction. Rows are independent, so a stream of rows is one
such value per chunk of rows. Law: however the members are cut into chunks, and in whatever order they come,
the result is that of all at once, to round-off in float64; memory is one or two [N, C] arrays however many
members there are.

Weights are relative: they are divided by their sum at the end, so that a stream need not know it.

Shapes: K members of one chunk, N rows, C classes, D targets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble_svc.aggregate.checks import (
    NORMALISATION_TOLERANCE,
    check_gaussians,
    check_log_probs,
    check_stack,
)
from ensemble_svc.errors import EnsembleError

BLOCK_ROWS = 8192
TINY = -600.0
"""Log of a sum of probabilities that is too small to be kept as a number."""
TIE_SHARE = 1e-4
"""What the mean probabilities count beside the votes: enough to settle ties, too little to overturn a vote."""


@dataclass(frozen=True)
class RunningMixture:
    """Mean of probabilities: the mixture, an opinion pool in which one member's certainty counts.

    The sum is of probabilities, which float64 holds to full precision down to 1e-308. Where it stays below
    ``exp(TINY)`` its logarithm is kept too, so that -2000 stays -2000 where every member says so. Members of
    weight 0 are not looked at.
    """

    weight: float = 0.0
    total_NC: Tensor | None = None
    """Weighted sum of the probabilities."""
    tail_NC: Tensor | None = None
    """Log of the same sum, right where it is tiny; None while it is so nowhere."""

    def add(self, log_probs_KNC: Tensor, weights_K: Sequence[float] | Tensor | None = None) -> RunningMixture:
        """With these members too.

        Raises:
            EnsembleError: members that are no distributions or of another shape; a weight that is negative
                or not finite.
        """
        check_stack("log_probs", log_probs_KNC, "members, rows, classes")
        weighed = list(_with_weights(log_probs_KNC, weights_K, self.total_NC))
        total_NC = torch.zeros_like(log_probs_KNC[0], dtype=torch.float64)
        for start in range(0, len(total_NC), BLOCK_ROWS):  # a block stays in the processor's cache
            rows = slice(start, start + BLOCK_ROWS)
            for member_NC, weight in weighed:
                probs_nC = member_NC[rows].to(torch.float64, copy=True).exp_()
                if not ((probs_nC.sum(dim=-1) - 1).abs() <= NORMALISATION_TOLERANCE).all():
                    check_log_probs(log_probs_KNC)  # says which member and row
                total_NC[rows].add_(probs_nC, alpha=weight)
        if self.total_NC is not None:
            total_NC += self.total_NC
        weight = self.weight + math.fsum(weight for _, weight in weighed)
        return RunningMixture(weight, total_NC if weight > 0 else None, self._tail(weighed, total_NC))

    def result(self) -> Tensor:
        """Log probabilities of the mixture, [N, C] float64.

        Raises:
            EnsembleError: no member of positive weight was added.
        """
        if self.total_NC is None:
            raise EnsembleError("no member of positive weight was added, so there is nothing to combine.")
        log_NC = self.total_NC.log()
        if self.tail_NC is not None:
            log_NC = torch.where(log_NC < TINY, self.tail_NC, log_NC)
        return log_NC - math.log(self.weight)

    def _tail(self, weighed: list[tuple[Tensor, float]], total_NC: Tensor) -> Tensor | None:
        """The sum's logarithm where all chunks so far left it tiny; a sum once larger stays so."""
        if not (total_NC < math.exp(TINY)).any():
            return self.tail_NC
        tail_NC = torch.full_like(total_NC, -math.inf) if self.tail_NC is None else self.tail_NC
        for member_NC, weight in weighed:
            tail_NC = torch.logaddexp(tail_NC, member_NC.double() + math.log(weight))
        return tail_NC


@dataclass(frozen=True)
class RunningGeometric:
    """Mean of log probabilities, normalised: a class is likely only if all members think it is."""

    weight: float = 0.0
    total_NC: Tensor | None = None
    """Weighted sum of the log probabilities."""

    def add(
        self, log_probs_KNC: Tensor, weights_K: Sequence[float] | Tensor | None = None
    ) -> RunningGeometric:
        """With these members too.

        Raises:
            EnsembleError: as ``RunningMixture.add``.
        """
        check_log_probs(log_probs_KNC)
        weight, total_NC = self.weight, None if self.total_NC is None else self.total_NC.clone()
        for member_NC, share in _with_weights(log_probs_KNC, weights_K, self.total_NC):
            if total_NC is None:
                total_NC = torch.zeros_like(member_NC, dtype=torch.float64)
            total_NC.add_(member_NC.double(), alpha=share)
            weight += share
        return RunningGeometric(weight, total_NC)

    def result(self) -> Tensor:
        """Log probabilities, [N, C] float64.

        Raises:
            EnsembleError: no member was added, or members that rule out every class of a row together.
        """
        if self.total_NC is None:
            raise EnsembleError("no member of positive weight was added, so there is nothing to combine.")
        impossible_N = self.total_NC.isneginf().all(dim=-1)
        if impossible_N.any():
            raise EnsembleError(
                f"in row {int(impossible_N.nonzero()[0])} each class has probability 0 by some member, so a "
                "geometric mean does not exist; combine by the mean."
            )
        return (self.total_NC / self.weight).log_softmax(dim=-1)


@dataclass(frozen=True)
class RunningVotes:
    """Each member votes for its most probable class (of equals the first): hard, majority voting.

    The result is the share of the votes with ``TIE_SHARE`` of the members' mean probability mixed in. So a
    tie goes to the class that the tied members think likelier, the rest of the vote stands, and no
    class that any member thinks possible has probability 0.
    """

    votes_NC: Tensor | None = None
    mixture: RunningMixture = RunningMixture()

    def add(self, log_probs_KNC: Tensor, weights_K: Sequence[float] | Tensor | None = None) -> RunningVotes:
        """With these members' votes too.

        Raises:
            EnsembleError: as ``RunningMixture.add``.
        """
        mixture = self.mixture.add(log_probs_KNC, weights_K)
        votes_NC = None if self.votes_NC is None else self.votes_NC.clone()
        for member_NC, weight in _with_weights(log_probs_KNC, weights_K, None):
            if votes_NC is None:
                votes_NC = torch.zeros_like(member_NC, dtype=torch.float64)
            vote_N1 = member_NC.argmax(dim=-1, keepdim=True)
            votes_NC.scatter_add_(1, vote_N1, torch.full_like(vote_N1, weight, dtype=torch.float64))
        return RunningVotes(votes_NC, mixture)

    def result(self) -> Tensor:
        """Log of the shares, [N, C] float64.

        Raises:
            EnsembleError: no member of positive weight was added.
        """
        mean_NC = self.mixture.result().exp_()
        if self.votes_NC is None:
            raise EnsembleError("no member of positive weight was added, so there is nothing to combine.")
        return torch.lerp(self.votes_NC / self.mixture.weight, mean_NC, TIE_SHARE).log_()


@dataclass(frozen=True)
class RunningGaussians:
    """Mean and variance of the mixture of Gaussians (Chan, Golub & LeVeque 1979), the spread in log space."""

    weight: float = 0.0
    mean_ND: Tensor | None = None
    log_spread_ND: Tensor | None = None
    """Log of the weighted sum of the variances and squared distances from the mean."""

    def add(
        self, mean_KND: Tensor, log_variance_KND: Tensor, weights_K: Sequence[float] | Tensor | None = None
    ) -> RunningGaussians:
        """With these members too.

        Raises:
            EnsembleError: members that are not finite or of another shape; a weight that is negative or not
                finite.
        """
        check_gaussians(mean_KND, log_variance_KND)
        now = self
        variances = _with_weights(log_variance_KND, weights_K, None)
        for (member_ND, weight), (spread_ND, _) in zip(
            _with_weights(mean_KND, weights_K, self.mean_ND), variances, strict=True
        ):
            now = now._one_more(member_ND.double(), spread_ND.double() + math.log(weight), weight)
        return now

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the mixture, each [N, D] float64.

        Raises:
            EnsembleError: no member of positive weight was added.
        """
        if self.mean_ND is None or self.log_spread_ND is None:
            raise EnsembleError("no member of positive weight was added, so there is nothing to combine.")
        return self.mean_ND, self.log_spread_ND - math.log(self.weight)

    def _one_more(self, mean_ND: Tensor, log_spread_ND: Tensor, weight: float) -> RunningGaussians:
        if self.mean_ND is None or self.log_spread_ND is None:
            return RunningGaussians(weight, mean_ND, log_spread_ND)
        total = self.weight + weight
        step_ND = mean_ND - self.mean_ND
        between_ND = 2 * step_ND.abs().log() + math.log(self.weight / total * weight)
        spread_ND = torch.logaddexp(torch.logaddexp(self.log_spread_ND, log_spread_ND), between_ND)
        return RunningGaussians(total, self.mean_ND + step_ND * (weight / total), spread_ND)


def _with_weights(
    stack: Tensor, weights_K: Sequence[float] | Tensor | None, like: Tensor | None
) -> Iterator[tuple[Tensor, float]]:
    """Members of positive weight; one of weight 0 would turn an infinite term into NaN."""
    if like is not None and stack.shape[1:] != like.shape:
        raise EnsembleError(
            f"these members are of shape {list(stack.shape[1:])}, those before of {list(like.shape)}."
        )
    weights = (
        [1.0] * len(stack) if weights_K is None else torch.as_tensor(weights_K, dtype=torch.float64).tolist()
    )
    if len(weights) != len(stack):
        raise EnsembleError(f"there are {len(weights)} weights for {len(stack)} members.")
    for k, weight in enumerate(weights):
        if not (math.isfinite(weight) and weight >= 0):
            raise EnsembleError(f"the weight of member {k} is {weight}; a weight is a finite number from 0.")
    return ((member, weight) for member, weight in zip(stack, weights, strict=True) if weight > 0)
