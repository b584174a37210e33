"""A decision about members that answer several tasks: one choice of members for all, a calibration for each.

Members are chosen by the weighted mean of the tasks' losses, each the mixture's negative log likelihood, as the job
weights the tasks in training. What is calibrated is each task's own answer, on the same held-out rows.

Shapes: K candidates, N held-out rows, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble_svc.aggregate.choosing import by_pool, decide, fitted_to, likelihood_of, shared_out
from ensemble_svc.aggregate.decision import Decision, HeldOut
from ensemble_svc.aggregate.pools import LikelihoodPool
from ensemble_svc.aggregate.selection import take_all
from ensemble_svc.spec.aggregate import (
    AggregateSpec,
    Calibrate,
    Greedy,
    NoCalibration,
    Temperature,
    TopK,
    Variance,
)


@dataclass(frozen=True)
class TasksPool:
    """Scored by the weighted mean of the tasks' negative log likelihoods; less is better."""

    pools: tuple[LikelihoodPool, ...]
    """Of the same candidates and as many rows."""
    weights: tuple[float, ...]
    """From 0, not all of them 0."""
    higher_is_better: bool = False

    @property
    def num_members(self) -> int:
        """Number of candidates, K."""
        return self.pools[0].num_members

    def empty(self) -> Tensor:
        """The totals of no picks, [T, N]."""
        return torch.stack([pool.empty() for pool in self.pools])

    def add(self, total: Tensor, member: int) -> Tensor:
        """The totals with one more pick."""
        return torch.stack([pool.add(own, member) for pool, own in zip(self.pools, total, strict=True)])

    def trial(self, total: Tensor, size: int, among: Sequence[int]) -> list[float]:
        """Score of the picks joined by each candidate of ``among``."""
        each = [pool.trial(own, size, among) for pool, own in zip(self.pools, total, strict=True)]
        whole = sum(self.weights)
        return [
            sum(w * loss for w, loss in zip(self.weights, losses, strict=True)) / whole
            for losses in zip(*each, strict=True)
        ]


def decide_tasks(
    spec: AggregateSpec,
    ids: Sequence[str],
    rows: Mapping[str, HeldOut],
    weights: Mapping[str, float],
    *,
    seed: int,
) -> Decision:
    """The ensemble that the job asks for, of members that answer several tasks.

    Args:
        ids: of the K candidates.
        rows: the same held-out rows as each task has them.
        weights: of the tasks' losses; where all are 0 they count alike.
        seed: as of ``choosing.decide``.

    Raises:
        EnsembleError: as ``choosing.decide``.
    """
    chooses = isinstance(spec.select, TopK | Greedy)
    if not (chooses or spec.calibrate.needs_rows or spec.conformal is not None):
        return decide(spec, ids, None, seed=seed)
    halves = {task: shared_out(spec, own, seed) for task, own in rows.items()}
    deciding = {task: first for task, (first, _) in halves.items() if first is not None}
    chosen = take_all(len(ids))
    if isinstance(spec.select, TopK | Greedy):
        chosen = by_pool(spec.select, _pool(deciding, weights), seed)
    held = next(iter(deciding.values()))
    decision = Decision(
        members=tuple(ids[k] for k in chosen.chosen),
        weights=tuple(chosen.weights[k] for k in chosen.chosen),
        picks=tuple(ids[k] for k in chosen.picks) if chooses else (),
        scores=chosen.scores,
        rows=held.kind,
        num_rows=len(held),
    )
    if isinstance(spec.calibrate, NoCalibration) and spec.conformal is None:
        return decision
    tasks = {}
    for task, own in deciding.items():
        own_spec = spec.model_copy(update={"calibrate": fitting(spec.calibrate, own)})
        found = fitted_to(decision, own_spec, chosen.chosen, own, halves[task][1])
        tasks[task] = {"calibration": found.calibration, "conformal": found.conformal}
    return decision.model_copy(update={"tasks": tasks})


def fitting(choice: Calibrate, rows: HeldOut) -> Calibrate:
    """The calibration as a task can have it: one of classes is the variance's scale for numbers, and ``variance``
    temperature for classes."""
    if isinstance(choice, NoCalibration):
        return choice
    of_numbers = isinstance(choice, Variance)
    if "log_probs" in rows.said:
        return Temperature() if of_numbers else choice
    return choice if of_numbers else Variance()


def _pool(rows: Mapping[str, HeldOut], weights: Mapping[str, float]) -> TasksPool:
    """Of the tasks that count: one of weight 0 has no say, not even by an infinite loss."""
    counted = [task for task in rows if weights[task]] or list(rows)
    pools = tuple(LikelihoodPool(likelihood_of(rows[task])) for task in counted)
    return TasksPool(pools, tuple(weights[task] or 1.0 for task in counted))
