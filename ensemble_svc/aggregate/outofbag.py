"""Out-of-bag predictions: each training row judged only by the members that did not see it.

A member trained on a bag (Breiman 1996, "Out-of-bag estimation") or without one fold has never seen the rest
of the rows, so the mixture of just those members is an honest prediction of them and no validation split is
needed. It is the prediction of a smaller ensemble (about 37 % of bootstrap members), so it is a little worse
than the whole one's on new rows. A row that every member saw has no such prediction: it is NaN, and counted.

With folds each member left out one fold, and this is the out-of-fold prediction.

Sums run member by member in float64; memory beyond the input is two [N, C] arrays.

Shapes: K members, N training rows, C classes, D targets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ensemble_svc.aggregate.checks import check_gaussians, check_log_probs, member_weights
from ensemble_svc.aggregate.likelihood import check_likelihood
from ensemble_svc.aggregate.pools import Pool
from ensemble_svc.aggregate.selection import Selection, greedy, take_all
from ensemble_svc.errors import EnsembleError


@dataclass(frozen=True)
class OutOfBag:
    """Predictions of the rows by the members that did not see them, and for how many rows there are any."""

    prediction: dict[str, Tensor]
    """``log_probs`` [N, C]; or ``mean`` [N, D] and ``log_variance`` [N, D]; float64, NaN where nobody may say."""
    voters_N: Tensor
    """int64: how many members (of positive weight) did not see the row."""

    @property
    def scored_N(self) -> Tensor:
        """Whether the row has a prediction."""
        return self.voters_N > 0

    @property
    def num_unscored(self) -> int:
        """Rows that every member saw."""
        return int((self.voters_N == 0).sum())


def seen_by(rows: list[Tensor], num_rows: int) -> Tensor:
    """Mask of the rows that each member trained on, [K, N], from each one's row numbers (repeats allowed).

    Raises:
        EnsembleError: no members, or a row number out of range; the member is named.
    """
    if not rows:
        raise EnsembleError("there are no members, so no row was seen or unseen.")
    seen_KN = torch.zeros(len(rows), num_rows, dtype=torch.bool)
    for k, index in enumerate(rows):
        if len(index) and not (int(index.min()) >= 0 and int(index.max()) < num_rows):
            raise EnsembleError(
                f"member {k} trained on rows {int(index.min())} to {int(index.max())}; "
                f"there are rows 0 to {num_rows - 1}."
            )
        seen_KN[k, index.long()] = True
    return seen_KN


def unseen_by_fold(fold_K: Tensor, fold_N: Tensor) -> Tensor:
    """Mask of the rows each member trained on, [K, N], when it left out one fold: all but that fold's."""
    return fold_K[:, None] != fold_N[None, :]


def out_of_bag_classes(log_probs_KNC: Tensor, seen_KN: Tensor, weights_K: Tensor | None = None) -> OutOfBag:
    """The mixture of the members that did not see each row.

    Args:
        log_probs_KNC: predictions of the training rows, without augmentation.
        seen_KN: True where the member trained on the row.
        weights_K: non-negative, sum 1; equal when absent. They are divided by each row's own sum.

    Raises:
        EnsembleError: members, weights or a mask that do not belong together.
    """
    check_log_probs(log_probs_KNC)
    weights, voters_N = _voters(seen_KN, log_probs_KNC, weights_K)
    sum_NC = torch.full_like(log_probs_KNC[0], -math.inf, dtype=torch.float64)
    weight_N = torch.zeros_like(voters_N, dtype=torch.float64)
    for member_NC, seen_N, weight in zip(log_probs_KNC, seen_KN, weights, strict=True):
        if weight > 0:
            unseen_N = ~seen_N
            more_nC = torch.logaddexp(sum_NC[unseen_N], member_NC[unseen_N].double() + math.log(weight))
            sum_NC[unseen_N] = more_nC
            weight_N += weight * unseen_N
    log_probs_NC = (sum_NC - weight_N.log()[:, None]).masked_fill_((voters_N == 0)[:, None], math.nan)
    return OutOfBag({"log_probs": log_probs_NC}, voters_N)


def out_of_bag_numbers(
    mean_KND: Tensor, log_variance_KND: Tensor | None, seen_KN: Tensor, weights_K: Tensor | None = None
) -> OutOfBag:
    """Mean, and log variance where the members have one, of the mixture of those that did not see each row.

    Raises:
        EnsembleError: members, weights or a mask that do not belong together.
    """
    check_gaussians(mean_KND, log_variance_KND)
    weights, voters_N = _voters(seen_KN, mean_KND, weights_K)
    mean_ND = torch.zeros_like(mean_KND[0], dtype=torch.float64)
    spread_ND = torch.full_like(mean_ND, -math.inf)
    weight_N = torch.zeros_like(voters_N, dtype=torch.float64)
    for k, weight in enumerate(weights):
        if weight > 0:
            unseen_N = ~seen_KN[k]
            total_n1 = (weight_N[unseen_N] + weight)[:, None]
            step_nD = mean_KND[k][unseen_N].double() - mean_ND[unseen_N]
            # Chan, Golub & LeVeque 1979, with nothing before the row's first voter
            between_nD = 2 * step_nD.abs().log() + (weight_N[unseen_N][:, None] / total_n1 * weight).log()
            if log_variance_KND is not None:
                own_nD = log_variance_KND[k][unseen_N].double() + math.log(weight)
                between_nD = torch.logaddexp(between_nD, own_nD)
            spread_ND[unseen_N] = torch.logaddexp(spread_ND[unseen_N], between_nD)
            mean_ND[unseen_N] += step_nD * (weight / total_n1)
            weight_N += weight * unseen_N
    nobody_N1 = (voters_N == 0)[:, None]
    prediction = {"mean": mean_ND.masked_fill_(nobody_N1, math.nan)}
    if log_variance_KND is not None:
        log_variance_ND = spread_ND - weight_N.log()[:, None]
        prediction["log_variance"] = log_variance_ND.masked_fill_(nobody_N1, math.nan)
    return OutOfBag(prediction, voters_N)


def out_of_bag_likelihood(
    log_likelihood_KN: Tensor, seen_KN: Tensor, weights_K: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Log likelihood of each row's truth under the mixture of the members that did not see it.

    Args:
        log_likelihood_KN: what each member gave each truth (``likelihood.log_likelihood``).

    Returns:
        [N] float64, NaN for a row that every member saw; and the number of voters, [N].

    Raises:
        EnsembleError: likelihoods, weights or a mask that do not belong together.
    """
    check_likelihood(log_likelihood_KN)
    weights, voters_N = _voters(seen_KN, log_likelihood_KN, weights_K)
    sum_N = torch.full_like(log_likelihood_KN[0], -math.inf, dtype=torch.float64)
    weight_N = torch.zeros_like(sum_N)
    for member_N, seen_N, weight in zip(log_likelihood_KN, seen_KN, weights, strict=True):
        if weight > 0:
            term_N = (member_N.double() + math.log(weight)).masked_fill(seen_N, -math.inf)
            sum_N = torch.logaddexp(sum_N, term_N)
            weight_N += weight * ~seen_N
    return (sum_N - weight_N.log()).masked_fill_(voters_N == 0, math.nan), voters_N


@dataclass(frozen=True)
class OutOfBagPool:
    """Candidates of a selection scored on their own training rows, each row by those that did not see it.

    Every candidate has one vote to begin with, and picks come on top of it. So each choice is scored on the
    same rows, those that some member did not see: were rows counted by the picks alone, a few lucky members
    would be judged on few rows, and each one that joined would bring rows of which it alone speaks.

    The score is the mixture's negative log likelihood, in nats per row.
    """

    log_likelihood_KN: Tensor
    seen_KN: Tensor
    higher_is_better: bool = False

    def __post_init__(self) -> None:
        if not self.judged_N.any():
            raise EnsembleError(
                "every row was seen by every member, so there is no out-of-bag row to select on."
            )

    @property
    def num_members(self) -> int:
        """Number of candidates."""
        return len(self.log_likelihood_KN)

    @property
    def judged_N(self) -> Tensor:
        """Rows that some candidate did not see."""
        return ~self.seen_KN.all(dim=0)

    @property
    def score_of_all(self) -> float:
        """Of the candidates with one vote each."""
        return self._score(self.empty())

    def empty(self) -> Tensor:
        """[2, N]: log of the likelihoods summed over all votes, and the number of votes; one for each candidate."""
        check_likelihood(self.log_likelihood_KN)
        term_KN = self.log_likelihood_KN.double().masked_fill(self.seen_KN, -math.inf)
        return torch.stack([term_KN.logsumexp(dim=0), (~self.seen_KN).double().sum(dim=0)])

    def add(self, total: Tensor, member: int) -> Tensor:
        """With one more pick, which votes where it did not see the row."""
        unseen_N = ~self.seen_KN[member]
        term_N = self.log_likelihood_KN[member].double().masked_fill(~unseen_N, -math.inf)
        return torch.stack([torch.logaddexp(total[0], term_N), total[1] + unseen_N])

    def trial(self, total: Tensor, size: int, among: Sequence[int]) -> list[float]:
        """Negative log likelihood with each candidate."""
        return [self._score(self.add(total, member)) for member in among]

    def _score(self, total: Tensor) -> float:
        likelihood_N, votes_N = total[:, self.judged_N]
        return (votes_N.log() - likelihood_N).mean().item()


class VotedPool(Pool, Protocol):
    """Candidates each of which has one vote before any pick."""

    @property
    def score_of_all(self) -> float:
        """Of the candidates with one vote each."""


def greedy_out_of_bag(pool: VotedPool, max_picks: int) -> Selection:
    """Greedy selection on top of one vote for each candidate; weights are votes over all votes.

    Where no pick makes the mixture better, all have equal weights.
    """
    num_members = pool.num_members
    found = greedy(pool, max_picks)
    if found.scores[-1] >= pool.score_of_all:
        return take_all(num_members)
    votes = [1 + found.picks.count(k) for k in range(num_members)]
    return Selection(tuple(v / sum(votes) for v in votes), found.picks, found.scores)


def _voters(seen_KN: Tensor, members: Tensor, weights_K: Tensor | None) -> tuple[list[float], Tensor]:
    if seen_KN.dtype != torch.bool or seen_KN.shape != members.shape[:2]:
        raise EnsembleError(
            f"the mask of seen rows is {seen_KN.dtype} of shape {list(seen_KN.shape)}; these members need "
            f"bool of shape {list(members.shape[:2])}, [members, rows]."
        )
    weights = member_weights(weights_K, len(members))
    counting_K = torch.tensor(weights, device=seen_KN.device) > 0
    return weights, (~seen_KN[counting_K]).sum(dim=0)
