"""What is seen of a member before it is trained: its layers, its first loss, and whether it can learn 20 rows."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ensemble_svc.data.dataset import Array, Dataset, InputSchema
from ensemble_svc.health.watching import Layer, noted
from ensemble_svc.nn.heads import loss_rows
from ensemble_svc.nn.noise import Draw
from ensemble_svc.nn.tasks import Answer, Heads
from ensemble_svc.optim.single import build
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.spec.losses import CrossEntropy, GaussianNll
from ensemble_svc.train.assemble import answer_of, assemble_fitted
from ensemble_svc.train.step import as_pixels

ROWS = 1000
"""Training rows that go through the network at most."""
FEW = 20
"""Rows that every network should be able to learn by heart."""
MOST_STEPS = 300
LEARNED = 0.05
"""Share of the first loss at which the few rows count as learned."""

LEARNED_GAUSSIAN = 0.5 * math.log(2 * math.pi) + math.log(0.2) + 0.5
"""Mean loss of a Gaussian of such a deviation."""

Loss = Callable[[nn.Module], Tensor]


@dataclass(frozen=True)
class Checkup:
    """What was seen of one untrained member."""

    member: str
    layers: tuple[Layer, ...]
    loss: float
    """Mean loss of the rows at the start."""
    guess: float
    """That of the best answer that does not look at the row."""
    few_before: float
    few_after: float
    """Loss of the few rows, at the start and after the steps."""
    few_steps: int
    learned: bool
    """Whether the few rows were learned by heart."""


def check(member: MemberSpec, dataset: Dataset, schema: InputSchema, rows: Array) -> Checkup:
    """Look at a member as its training would begin; nothing is written or kept.

    Dropout and noise are off, batch norms see the rows as one batch.

    Args:
        rows: the member's training rows.
    """
    net = assemble_fitted([member], dataset, schema, [rows]).net
    for module in net.modules():
        if isinstance(module, Draw):
            module.draws = False
    some = rows[:: max(1, len(rows) // ROWS)][:ROWS]
    x = torch.from_numpy(dataset.x[some])
    with torch.no_grad():
        x = net.transform(as_pixels(x))
    y = torch.from_numpy(dataset.y[some])
    if hasattr(net, "target_mean"):
        y = ((y - net.target_mean) / net.target_scale).float()
    answer = answer_of(member, schema)
    loss = _loss_of(answer, x, y)
    layers, first = _first_step(copy.deepcopy(net.body), member, loss)
    before, after, steps, learned = _learn(net.body, member, answer, x[:FEW], y[:FEW])
    return Checkup(
        member=member.id,
        layers=tuple(layers),
        loss=first,
        guess=_guess(answer, y),
        few_before=before,
        few_after=after,
        few_steps=steps,
        learned=learned,
    )


def _loss_of(answer: Answer, x: Tensor, y: Tensor) -> Loss:
    if isinstance(answer, Heads):
        return lambda body: answer.loss_rows(body(x).float(), y).mean()
    return lambda body: loss_rows(answer, body(x).float(), y).mean()


def _first_step(body: nn.Module, member: MemberSpec, loss: Loss) -> tuple[list[Layer], float]:
    """The layers with their activity, their gradients and what the optimiser's first step does to them."""
    body.train()
    rule = build(member.training.optimizer, [p for p in body.parameters() if p.requires_grad])
    with noted(body) as layers:
        first = loss(body)
    first.backward()
    before = [layer.module.weight.detach().clone() for layer in layers]
    rule.step()
    for layer, old in zip(layers, before, strict=True):
        weight, gradient = layer.module.weight.detach(), layer.module.weight.grad
        layer.weight = float(old.norm())
        layer.gradient = 0.0 if gradient is None else float(gradient.norm())
        moved = float((weight - old).norm())
        layer.update = moved / layer.weight if layer.weight else (math.inf if moved else 0.0)
    return layers, float(first.detach())


def _learn(
    body: nn.Module, member: MemberSpec, answer: Answer, x: Tensor, y: Tensor
) -> tuple[float, float, int, bool]:
    """Train on a few rows until they are known by heart: losses before and after, steps, success."""
    body.train()
    loss = _loss_of(answer, x, y)
    rule = build(member.training.optimizer, [p for p in body.parameters() if p.requires_grad])
    first = last = float(loss(body).detach())
    for step in range(1, MOST_STEPS + 1):
        rule.zero_grad()
        value = loss(body)
        last = float(value.detach())
        if not math.isfinite(last):
            return first, last, step, False
        if _is_learned(answer, first, last):
            return first, last, step, True
        value.backward()
        rule.step()
    return first, last, MOST_STEPS, False


def _is_learned(answer: Answer, first: float, last: float) -> bool:
    """A Gaussian's likelihood has no best value; there a standard deviation of a fifth counts as learned.

    Of several tasks the weighted sum of what would count for each.
    """
    if isinstance(answer, Heads):
        gaussians = sum(head.weight for head in answer.taught if isinstance(head.loss, GaussianNll))
        floor = gaussians * LEARNED_GAUSSIAN
        return last < floor + LEARNED * max(0.0, first - floor)
    if isinstance(answer, GaussianNll):
        return last < LEARNED_GAUSSIAN
    return last < LEARNED * first


def _guess(answer: Answer, y: Tensor) -> float:
    """Loss of the best answer that is the same for every row."""
    if isinstance(answer, Heads):
        return sum(head.weight * _guess(head.loss, head.target(y)) for head in answer.taught)
    if isinstance(answer, CrossEntropy):
        shares = y.bincount().double() / len(y)
        return float(-(shares * shares.clamp_min(1e-12).log()).sum())
    variance = y.double().var(0, correction=0).clamp_min(1e-12)
    if isinstance(answer, GaussianNll):
        return float(0.5 * ((2 * math.pi * variance).log() + 1).sum())
    return float(variance.sum())
