"""Several answers from one network: a shared trunk, and a head for each task.

The heads are the last layer side by side: the network puts out one vector, of which each head reads its own
slice. What is minimised is the weighted sum of the tasks' losses. With learned weights (Kendall, Gal & Cipolla
2018, arXiv:1705.07115) each member learns a log variance s of each task: a regression's squared error L becomes
exp(-s) L / 2 + s / 2, minus the log likelihood of a Gaussian, and a cross-entropy exp(-s) L + s / 2, about that of
a softmax at temperature exp(s). A task under ``gaussian_nll`` puts out a variance for each row already, so it has no
further one.

Shapes: K members, B rows, O outputs of all heads, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble_svc.errors import Fault, SpecError
from ensemble_svc.nn.heads import ResolvedLoss, loss_rows, num_outputs, resolve_loss, to_prediction
from ensemble_svc.nn.member import in_target_units
from ensemble_svc.spec.losses import CrossEntropy, GaussianNll, Mse
from ensemble_svc.spec.tasks import Tasks


@dataclass(frozen=True)
class Head:
    """What one task reads of the outputs, and what it minimises."""

    name: str
    loss: ResolvedLoss
    column: int
    """Of the targets [..., T]."""
    start: int
    """First of its outputs."""
    width: int
    weight: float
    scaled: bool
    """Whether a member learns its log variance."""

    def outputs(self, outputs: Tensor) -> Tensor:
        """Its own of the outputs [..., O]."""
        return outputs[..., self.start : self.start + self.width]

    def target(self, y: Tensor) -> Tensor:
        """Its own of the targets [..., T]: class numbers [...], or numbers [..., 1]."""
        if isinstance(self.loss, CrossEntropy):
            return y[..., self.column].long()
        return y[..., self.column : self.column + 1]

    def of(self, prediction: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its own part of a prediction of all tasks."""
        return part_of(prediction, self.name)


@dataclass(frozen=True)
class Heads:
    """The tasks of one network."""

    each: tuple[Head, ...]

    @property
    def num_outputs(self) -> int:
        """O."""
        return sum(head.width for head in self.each)

    @property
    def is_scaled(self) -> bool:
        """Whether some log variance is learned."""
        return any(head.scaled for head in self.each)

    @property
    def taught(self) -> tuple[Head, ...]:
        """The heads whose loss counts."""
        return tuple(head for head in self.each if head.weight)

    def loss_rows(self, outputs_BO: Tensor, y_BT: Tensor) -> Tensor:
        """Each row's weighted sum of losses [B] while all log variances are 0."""
        each = [loss_rows(h.loss, h.outputs(outputs_BO), h.target(y_BT)) for h in self.taught]
        return self.total(each)

    def total(self, rows: Sequence[Tensor], log_variance_KT: Tensor | None = None) -> Tensor:
        """The weighted sum over the taught heads of their rows' losses, each [B] or [K, B].

        Args:
            log_variance_KT: what the members have learned; where it is given the rows are [K, B].
        """
        terms = []
        for head, loss_KB in zip(self.taught, rows, strict=True):
            if log_variance_KT is not None and head.scaled:
                log_variance_K1 = log_variance_KT[:, head.column, None]
                half = 0.5 if isinstance(head.loss, Mse) else 1.0
                loss_KB = half * (-log_variance_K1).exp() * loss_KB + 0.5 * log_variance_K1
            terms.append(head.weight * loss_KB if head.weight != 1 else loss_KB)
        return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]

    def predict(self, outputs: Tensor, scale_K: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the outputs [K, N, O] say: ``<task>/log_probs``, or ``<task>/mean`` and ``<task>/log_variance``.

        Args:
            scale_K: the members' scales of all targets [K, T].
        """
        found: dict[str, Tensor] = {}
        for head in self.each:
            own_K = {name: value[:, head.column : head.column + 1] for name, value in scale_K.items()}
            one = in_target_units(to_prediction(head.loss, head.outputs(outputs)), own_K)
            found |= {f"{head.name}/{key}": value for key, value in one.items()}
        return found


Answer = ResolvedLoss | Heads
"""What a network's outputs mean: one task, or several."""


def answer_rows(answer: Answer, outputs_BO: Tensor, y_B: Tensor) -> Tensor:
    """Each row's loss [B]; of several tasks their weighted sum while all log variances are 0."""
    if isinstance(answer, Heads):
        return answer.loss_rows(outputs_BO, y_B)
    return loss_rows(answer, outputs_BO, y_B)


def heads_of(tasks: Tasks, classes: Mapping[str, Sequence[str]], *, learned: bool = False) -> Heads:
    """The heads in the order of the tasks.

    Args:
        classes: the names of each task's classes; none for numbers.
        learned: whether members learn how much each task counts.

    Raises:
        SpecError: a loss of the other kind of task.
    """
    heads: list[Head] = []
    start = 0
    for column, (name, task) in enumerate(tasks.items()):
        try:
            loss = resolve_loss(task.kind, task.loss)
        except SpecError as fault:
            raise SpecError([Fault(f"tasks.{name}.loss", fault.faults[0].message)]) from fault
        width = num_outputs(task.kind, loss, len(classes[name]) or 1)
        scaled = learned and bool(task.weight) and not isinstance(loss, GaussianNll)
        heads.append(Head(name, loss, column, start, width, task.weight, scaled))
        start += width
    return Heads(tuple(heads))


def part_of(values: Mapping[str, Tensor], task: str) -> dict[str, Tensor]:
    """What of ``<task>/<key>`` belongs to one task, by key."""
    head = f"{task}/"
    return {name.removeprefix(head): value for name, value in values.items() if name.startswith(head)}
