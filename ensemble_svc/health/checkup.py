"""What is seen of a member before it is trained: its layers, its first loss, and whether it can learn 20 rows."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ensemble_svc.data.dataset import Array, Dataset, InputSchema
from ensemble_svc.data.pixels import as_pixels
from ensemble_svc.nn.heads import ResolvedLoss, loss_rows, resolve_loss
from ensemble_svc.nn.member import MemberNet
from ensemble_svc.nn.noise import Draw
from ensemble_svc.optim.single import build
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.spec.inits import Fixup
from ensemble_svc.spec.losses import CrossEntropy, GaussianNll
from ensemble_svc.spec.model import Network
from ensemble_svc.train.assemble import assemble_fitted
from ensemble_svc.train.roles import roles
from ensemble_svc.vitals.guess import guessing, least_smoothed
from ensemble_svc.vitals.watching import Layer, noted

ROWS = 1000
"""Training rows that go through the network at most."""
FEW = 20
"""Rows that every network should be able to learn by heart."""
MOST_STEPS = 300
LEARNED = 0.05
"""Share of the first loss at which the few rows count as learned."""

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


@dataclass(frozen=True)
class Ready:
    """A member with some of its training rows, as its loss takes them."""

    net: MemberNet
    x: Tensor
    y: Tensor
    loss: Loss
    """Mean loss of the rows, of a network's body."""


def ready(
    member: MemberSpec,
    dataset: Dataset,
    schema: InputSchema,
    rows: Array,
    *,
    most: int = ROWS,
    weights: Mapping[str, Tensor] | None = None,
) -> Ready:
    """The member as its training would begin, or with other weights; dropout and noise are off.

    Args:
        rows: the member's training rows, of which at most ``most`` are taken, evenly apart.
    """
    net = assemble_fitted([member], dataset, schema, [rows]).net
    if weights is not None:
        net.load_state_dict(dict(weights))
    for module in net.modules():
        if isinstance(module, Draw):
            module.draws = False
    some = rows[:: max(1, len(rows) // most)][:most]
    x = torch.from_numpy(dataset.x[some])
    with torch.no_grad():
        x = net.transform(as_pixels(x))
    y = torch.from_numpy(dataset.y[some])
    if hasattr(net, "target_mean"):
        y = ((y - net.target_mean) / net.target_scale).float()
    return Ready(net, x, y, _loss_of(member, x, y))


def check(member: MemberSpec, dataset: Dataset, schema: InputSchema, rows: Array) -> Checkup:
    """Look at a member as its training would begin; nothing is written or kept.

    Dropout and noise are off, batch norms see the rows as one batch. A network of fixup is looked at after
    two steps.

    Args:
        rows: the member's training rows.
    """
    own = ready(member, dataset, schema, rows)
    x, y, body = own.x, own.y, own.net.body
    first_body = copy.deepcopy(body)
    if isinstance(member.model, Network) and isinstance(member.model.init, Fixup):
        _wake(first_body, member, own.loss)
    layers, first = _first_step(first_body, member, own.loss)
    before, after, steps, learned = _learn(body, member, x[:FEW], y[:FEW])
    return Checkup(
        member=member.id,
        layers=tuple(layers),
        loss=first,
        guess=guessing(resolve_loss(member.task, member.training.loss), y, len(schema.classes) or None),
        few_before=before,
        few_after=after,
        few_steps=steps,
        learned=learned,
    )


def _loss_of(member: MemberSpec, x: Tensor, y: Tensor) -> Loss:
    kind = resolve_loss(member.task, member.training.loss)
    return lambda body: loss_rows(kind, body(x).float(), y).mean()


def _wake(body: nn.Module, member: MemberSpec, loss: Loss) -> None:
    """Two steps, after which the layers that fixup begins at 0 let the gradient through to all others."""
    rule = _rule_of(member, body)
    for _ in range(2):
        rule.zero_grad()
        loss(body).backward()
        rule.step()
    rule.zero_grad()


def _rule_of(member: MemberSpec, body: nn.Module) -> torch.optim.Optimizer:
    trained = {name: param for name, param in body.named_parameters() if param.requires_grad}
    return build(member.training.optimizer, trained, roles(body, member.training))


def _first_step(body: nn.Module, member: MemberSpec, loss: Loss) -> tuple[list[Layer], float]:
    """The layers with their activity, their gradients and what the optimiser's first step does to them."""
    body.train()
    rule = _rule_of(member, body)
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


def _learn(body: nn.Module, member: MemberSpec, x: Tensor, y: Tensor) -> tuple[float, float, int, bool]:
    """Train on a few rows until they are known by heart: losses before and after, steps, success."""
    body.train()
    loss = _loss_of(member, x, y)
    rule = _rule_of(member, body)
    kind = resolve_loss(member.task, member.training.loss)
    with torch.no_grad():
        num_classes = body(x).shape[-1]
    first = last = float(loss(body).detach())
    for step in range(1, MOST_STEPS + 1):
        rule.zero_grad()
        value = loss(body)
        last = float(value.detach())
        if not math.isfinite(last):
            return first, last, step, False
        if _is_learned(kind, first, last, num_classes):
            return first, last, step, True
        value.backward()
        rule.step()
    return first, last, MOST_STEPS, False


def _is_learned(kind: ResolvedLoss, first: float, last: float, num_classes: int) -> bool:
    """Near the least loss there is. A Gaussian's likelihood has none; there a standard deviation of a fifth will do."""
    if isinstance(kind, CrossEntropy) and kind.label_smoothing:
        least = least_smoothed(kind.label_smoothing, num_classes)
        return last - least < LEARNED * (first - least)
    if isinstance(kind, GaussianNll):
        return last < 0.5 * math.log(2 * math.pi) + math.log(0.2) + 0.5
    return last < LEARNED * first
