"""What is decided about an ensemble on held-out rows: who is in it, with what weight, and how sure it is taken to be.

A decision is a frozen value of plain numbers. It is made once (``choosing.decide``) and applied to any rows
(``apply``); the rows that it was made on are never those that are reported.

Shapes: K candidates, N held-out rows, C classes, D targets; M chosen members.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ensemble_svc.aggregate.calibration import temperature, variance
from ensemble_svc.aggregate.calibration.conformal import (
    PredictionIntervals,
    PredictionSets,
)
from ensemble_svc.aggregate.calibration.plain import Calibration, from_plain
from ensemble_svc.aggregate.checks import check_gaussians, check_log_probs
from ensemble_svc.aggregate.pooling import geometric, vote
from ensemble_svc.aggregate.predictions import combine
from ensemble_svc.registry import Spec

Pooling = Literal["mean", "geometric", "vote"]
Rows = Literal["none", "validation", "oob", "oof", "data"]
Prediction = dict[str, Tensor]


PIECE_NUMBERS = 1 << 22
"""Numbers that the members say of rows that are looked at together."""


@dataclass(frozen=True)
class HeldOut:
    """Rows that decide, as the candidates predict them.

    What all candidates say of all rows is never copied: some rows, or some candidates, are chosen when a piece of them
    is looked at.
    """

    kind: Rows
    said: Mapping[str, Tensor]
    """Before any choice: ``log_probs`` [K, N, C]; or ``mean`` and ``log_variance`` [K, N, D]."""
    target: Tensor
    """[N] class numbers, or [N, D]."""
    seen_KN: Tensor | None = None
    """Training rows: True where the member trained on the row, so that its word does not count."""
    who: Tensor | None = None
    """Positions of the chosen among the K; None for all."""
    rows: Tensor | None = None
    """Positions of the chosen rows; None for all."""

    def __len__(self) -> int:
        return len(self.target)

    @property
    def members(self) -> dict[str, Tensor]:
        """What the chosen candidates say of the chosen rows, [K, N, …]: a copy where not all are chosen."""
        return self._taken(slice(0, len(self)))

    def at(self, rows: Tensor) -> HeldOut:
        """Some of the rows, by position."""
        seen_KN = None if self.seen_KN is None else self.seen_KN[:, rows]
        chosen = rows if self.rows is None else self.rows[rows]
        return replace(self, target=self.target[rows], seen_KN=seen_KN, rows=chosen)

    def of(self, members: Sequence[int]) -> HeldOut:
        """The same rows as only some of the candidates predict them, by position."""
        who = torch.tensor(members)
        seen_KN = None if self.seen_KN is None else self.seen_KN[who]
        return replace(self, seen_KN=seen_KN, who=who if self.who is None else self.who[who])

    def pieces(self) -> Iterator[HeldOut]:
        """The rows in order, so many at a time that the chosen say about ``PIECE_NUMBERS`` of them."""
        step = self._step()
        for start in range(0, len(self), step):
            rows = slice(start, min(start + step, len(self)))
            seen_Kn = None if self.seen_KN is None else self.seen_KN[:, rows]
            yield HeldOut(self.kind, self._taken(rows), self.target[rows], seen_Kn)

    def check(self) -> None:
        """Name the first wrong row of all; pieces would count the rows from their own start.

        Raises:
            EnsembleError: predictions that cannot be combined.
        """
        if self._step() >= len(self):
            return
        if "log_probs" in self.said:
            check_log_probs(self.said["log_probs"])
        else:
            check_gaussians(self.said["mean"], self.said.get("log_variance"))

    def _step(self) -> int:
        each = sum(stack[0, :1].numel() * self._num_members(stack) for stack in self.said.values())
        return max(1, PIECE_NUMBERS // max(1, each))

    def _num_members(self, stack: Tensor) -> int:
        return len(stack) if self.who is None else len(self.who)

    def _taken(self, rows: slice) -> dict[str, Tensor]:
        if self.rows is None:
            some = {name: stack[:, rows] for name, stack in self.said.items()}
            return some if self.who is None else {name: stack[self.who] for name, stack in some.items()}
        index = self.rows[rows]
        if self.who is None:
            return {name: stack[:, index] for name, stack in self.said.items()}
        return {name: stack[self.who[:, None], index] for name, stack in self.said.items()}


class Decision(Spec):
    """Who is in the ensemble and what is made of their predictions."""

    members: tuple[str, ...]
    """Ids of the chosen, in the candidates' order."""
    weights: tuple[float, ...]
    """One for each of them, above 0, sum 1; of tasks with weights of their own, which may be 0, the mean."""
    combine: Pooling = "mean"
    calibration: Mapping[str, Any] | None = None
    """What was fitted, as plain numbers (``aggregate.calibration.plain``)."""
    conformal: Mapping[str, Any] | None = None
    """Likewise, of the sets or intervals."""
    tasks: Mapping[str, Mapping[str, Any]] = {}
    """What each of several tasks has of its own: ``calibration`` and ``conformal``; ``weights``, where they are fitted
    to each; ``combine``, where numbers are not combined as classes are. The members are those of all."""
    rows: Rows = "none"
    """What it was decided on."""
    num_rows: int = 0
    picks: tuple[str, ...] = ()
    """Ids in the order in which they were chosen; a member may come more than once."""
    scores: tuple[float, ...] = ()
    """Of the ensemble on the deciding rows after each pick: chosen by it, so no estimate of it elsewhere."""

    def of(self, task: str) -> Decision:
        """The same ensemble as one of several tasks has it, with its own calibration."""
        return self.model_copy(update={**self.tasks.get(task, {}), "tasks": {}})

    @property
    def calibrator(self) -> Calibration | None:
        """The fitted calibration."""
        return None if self.calibration is None else from_plain(self.calibration)

    @property
    def coverage(self) -> PredictionSets | PredictionIntervals | None:
        """The fitted sets or intervals."""
        found = None if self.conformal is None else from_plain(self.conformal)
        assert found is None or isinstance(found, PredictionSets | PredictionIntervals)
        return found

    @property
    def is_plain(self) -> bool:
        """Whether it says what the equal mixture of the same members says."""
        return self.combine == "mean" and self.calibration is None and len(set(self.weights)) == 1


def equal(ids: Sequence[str]) -> Decision:
    """All members with equal weights, nothing calibrated: what needs no rows."""
    return Decision(members=tuple(ids), weights=tuple(1 / len(ids) for _ in ids))


def apply(decision: Decision, members: Mapping[str, Tensor], target: Tensor | None = None) -> Prediction:
    """The ensemble's prediction.

    Args:
        members: of the chosen members, in the decision's order, [M, N, …].
        target: regression: adds ``log_density`` [N], the log density of these targets.

    Returns:
        ``log_probs`` [N, C]; or ``mean``, ``log_variance`` [N, D].
    """
    calibrator = decision.calibrator
    weights_M = torch.tensor(decision.weights, dtype=torch.float64)
    if "log_probs" not in members:
        if isinstance(calibrator, variance.VarianceScale):
            members = {**members, "log_variance": calibrator.apply(members["log_variance"])}
        return combine(members, weights_M, target_ND=target)
    log_probs_MNC = members["log_probs"]
    if isinstance(calibrator, temperature.Temperature) and calibrator.before:
        log_probs_MNC = calibrator.apply(log_probs_MNC)
    pooled = POOLINGS[decision.combine](log_probs_MNC, weights_M)
    if calibrator is None or (isinstance(calibrator, temperature.Temperature) and calibrator.before):
        return {"log_probs": pooled}
    assert not isinstance(calibrator, variance.VarianceScale | PredictionIntervals)
    return {"log_probs": calibrator.apply(pooled)}


def _mean(log_probs_MNC: Tensor, weights_M: Tensor) -> Tensor:
    return combine({"log_probs": log_probs_MNC}, weights_M)["log_probs"]


POOLINGS: Mapping[Pooling, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": _mean,
    "geometric": geometric,
    "vote": vote,
}
