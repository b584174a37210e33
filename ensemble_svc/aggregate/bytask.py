"""A decision about members that answer several tasks: one choice of members for all, a calibration for each.

Members are chosen by the weighted mean over the tasks, as the job weights their losses in training: of the mixture's
negative log likelihood, or where members are to differ of each one's error and of their disagreements. Stacking blends
the members anew for each task. What is calibrated is each task's own answer, on the same held-out rows. With one task
all of it is what ``choosing.decide`` decides.

Shapes: K candidates, N held-out rows, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ensemble_svc.aggregate.choosing import by_pool, fitted_to, likelihood_of, pooling_of, shared_out
from ensemble_svc.aggregate.decision import Decision, HeldOut
from ensemble_svc.aggregate.diverse import diverse, errors_of
from ensemble_svc.aggregate.outofbag import OutOfBagPool, greedy_out_of_bag
from ensemble_svc.aggregate.pools import LikelihoodPool
from ensemble_svc.aggregate.selection import Selection, take_all
from ensemble_svc.aggregate.stacking import by_likelihood
from ensemble_svc.spec.aggregate import (
    AggregateSpec,
    All,
    Calibrate,
    Diverse,
    Greedy,
    NoCalibration,
    Select,
    Stacking,
    Temperature,
    TopK,
    Variance,
)
from ensemble_svc.spec.tasks import Tasks

Rows = Mapping[str, HeldOut]
"""The same held-out rows as each task has them."""


@dataclass(frozen=True)
class TasksPool:
    """Scored by the weighted mean of the tasks' negative log likelihoods; less is better."""

    pools: tuple[LikelihoodPool | OutOfBagPool, ...]
    """Of the same candidates and as many rows."""
    weights: tuple[float, ...]
    """From 0, not all of them 0."""
    higher_is_better: bool = False

    @property
    def num_members(self) -> int:
        """Number of candidates, K."""
        return self.pools[0].num_members

    @property
    def score_of_all(self) -> float:
        """Out of bag: of the candidates with one vote each."""
        return self._mean([pool.score_of_all for pool in self.pools if isinstance(pool, OutOfBagPool)])

    def empty(self) -> Tensor:
        """The totals of no picks, [T, …]."""
        return torch.stack([pool.empty() for pool in self.pools])

    def add(self, total: Tensor, member: int) -> Tensor:
        """The totals with one more pick."""
        return torch.stack([pool.add(own, member) for pool, own in zip(self.pools, total, strict=True)])

    def trial(self, total: Tensor, size: int, among: Sequence[int]) -> list[float]:
        """Score of the picks joined by each candidate of ``among``."""
        each = [pool.trial(own, size, among) for pool, own in zip(self.pools, total, strict=True)]
        return [self._mean(losses) for losses in zip(*each, strict=True)]

    def _mean(self, losses: Sequence[float]) -> float:
        return sum(w * loss for w, loss in zip(self.weights, losses, strict=True)) / sum(self.weights)


def decide_tasks(
    spec: AggregateSpec, ids: Sequence[str], rows: Rows | None, tasks: Tasks, *, seed: int
) -> Decision:
    """The ensemble that the job asks for, of members that answer several tasks.

    Args:
        ids: of the K candidates.
        rows: None where there are none; then nothing may be asked that needs them.
        tasks: their weights are those of the losses; where all are 0 they count alike.
        seed: as of ``choosing.decide``.

    Raises:
        EnsembleError: as ``choosing.decide``.
    """
    halves = {task: shared_out(spec, own, seed) for task, own in (rows or {}).items()}
    deciding = {task: first for task, (first, _) in halves.items() if first is not None}
    weights = {task: deal.weight for task, deal in tasks.items()}
    blends = _blends(spec, deciding)
    chosen = (
        _blended(blends, weights) if blends else _selected(spec.select, len(ids), deciding, weights, seed)
    )
    is_asked = not isinstance(spec.select, All)
    decision = Decision(
        members=tuple(ids[k] for k in chosen.chosen),
        weights=tuple(chosen.weights[k] for k in chosen.chosen),
        combine=pooling_of(spec.combine),
        picks=tuple(ids[k] for k in chosen.picks) if is_asked else (),
        scores=chosen.scores,
    )
    needs_rows = (
        is_asked or spec.combine.needs_rows or spec.calibrate.needs_rows or spec.conformal is not None
    )
    if deciding and needs_rows:
        held = next(iter(deciding.values()))
        decision = decision.model_copy(update={"rows": held.kind, "num_rows": len(held)})
    own = {
        task: _own(decision, deal.kind == "regression", blends.get(task), chosen.chosen)
        for task, deal in tasks.items()
    }
    if deciding and (spec.calibrate.needs_rows or spec.conformal is not None):
        for task, (first, promising) in halves.items():
            assert first is not None
            fitted = spec.model_copy(update={"calibrate": fitting(spec.calibrate, first)})
            alone = decision.model_copy(update=own[task])
            found = fitted_to(alone, fitted, chosen.chosen, first, promising)
            own[task] |= {"calibration": found.calibration, "conformal": found.conformal}
    return decision.model_copy(update={"tasks": {task: each for task, each in own.items() if each}})


def fitting(choice: Calibrate, rows: HeldOut) -> Calibrate:
    """The calibration as a task can have it: one of classes is the variance's scale for numbers, and ``variance``
    temperature for classes."""
    if isinstance(choice, NoCalibration):
        return choice
    of_numbers = isinstance(choice, Variance)
    if "log_probs" in rows.said:
        return Temperature() if of_numbers else choice
    return choice if of_numbers else Variance()


def counting(weights: Mapping[str, float]) -> dict[str, float]:
    """Of the tasks that count, the share of each: one of weight 0 has no say, not even by an infinite loss.

    Where all weights are 0, they count alike.
    """
    counted = {task: weight for task, weight in weights.items() if weight} or dict.fromkeys(weights, 1.0)
    whole = sum(counted.values())
    return {task: weight / whole for task, weight in counted.items()}


def _own(
    decision: Decision, of_numbers: bool, blend: Sequence[float] | None, chosen: Sequence[int]
) -> dict[str, Any]:
    """What a task has of its own before anything is calibrated: numbers are always combined as a mixture."""
    own: dict[str, Any] = {} if blend is None else {"weights": tuple(blend[k] for k in chosen)}
    if of_numbers and decision.combine != "mean":
        own["combine"] = "mean"
    return own


def _blends(spec: AggregateSpec, rows: Rows) -> dict[str, tuple[float, ...]]:
    """Each task's weights of all candidates; none where members are not blended."""
    if not isinstance(spec.combine, Stacking):
        return {}
    prior_rows = spec.combine.prior_rows
    return {
        task: by_likelihood(likelihood_of(own), prior_rows=prior_rows).weights for task, own in rows.items()
    }


def _blended(blends: Mapping[str, Sequence[float]], weights: Mapping[str, float]) -> Selection:
    """Whoever has a weight in some task, with the mean of the weights in the tasks that count.

    One that only tasks which do not count lean on has a weight too, if a vanishing one: it predicts.
    """
    shares = counting(weights)
    columns = list(zip(*blends.values(), strict=True))
    mean = [
        sum(shares.get(task, 0.0) * weight for task, weight in zip(blends, column, strict=True))
        for column in columns
    ]
    least = min(weight for weight in mean if weight > 0) * 1e-6
    mean = [weight or (least if any(column) else 0.0) for weight, column in zip(mean, columns, strict=True)]
    return Selection(tuple(weight / sum(mean) for weight in mean), tuple(range(len(mean))), ())


def _selected(
    select: Select, num_members: int, rows: Rows, weights: Mapping[str, float], seed: int
) -> Selection:
    if not rows:
        return take_all(num_members)
    match select:
        case All():
            return take_all(num_members)
        case Diverse(k=k):
            shares = counting(weights)
            each = [(share, *errors_of(rows[t].members, rows[t].target)) for t, share in shares.items()]
            error_K = torch.stack([share * error for share, error, _ in each]).sum(0)
            apart_KK = torch.stack([share * apart for share, _, apart in each]).sum(0)
            return diverse(error_K, apart_KK, min(k, num_members), diversity=select.diversity)
        case Greedy() if next(iter(rows.values())).seen_KN is not None:
            return greedy_out_of_bag(_pool(rows, weights), select.picks)
        case TopK() | Greedy():
            return by_pool(select, _pool(rows, weights), seed)


def _pool(rows: Rows, weights: Mapping[str, float]) -> TasksPool:
    """Of the tasks that count."""
    shares = counting(weights)
    counted = tuple(shares.values())
    told = [(likelihood_of(rows[t]), rows[t].seen_KN) for t in shares]
    unseen = tuple(OutOfBagPool(likelihood_KN, seen) for likelihood_KN, seen in told if seen is not None)
    return TasksPool(unseen or tuple(LikelihoodPool(likelihood_KN) for likelihood_KN, _ in told), counted)
