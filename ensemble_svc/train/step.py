"""The arithmetic of one optimiser step: the members' batch, their outputs, their losses.

Shapes: K members, B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ensemble_svc.data.augment import build_augment
from ensemble_svc.data.pixels import as_pixels
from ensemble_svc.nn.distilled import on_scale, taught_rows
from ensemble_svc.nn.heads import ResolvedLoss, loss_rows
from ensemble_svc.nn.member import TASK_SCALE, MemberNet
from ensemble_svc.nn.noise import draw_from, normal_like
from ensemble_svc.nn.packed import has_convolutions
from ensemble_svc.nn.regularize import penalised
from ensemble_svc.nn.tasks import Heads
from ensemble_svc.spec.losses import CrossEntropy
from ensemble_svc.train.assemble import Stack, part
from ensemble_svc.train.feed import DeviceData, gather
from ensemble_svc.train.mixing import Mixed, mix_one
from ensemble_svc.train.recipe import Own, Recipe
from ensemble_svc.train.roles import roles
from ensemble_svc.train.sparsity import Sparse
from ensemble_svc.train.stream import BagWeights, StreamBatch

Layer = Callable[[Tensor], Tensor]


class Batch(NamedTuple):
    """One step's data, a batch for each member."""

    x_KB: Tensor
    y_KB: Tensor
    weight_KB: Tensor | None = None
    """How much each row counts, mean 1 over the training rows; None where all count alike."""
    mixed: Mixed | None = None
    """With which rows these are mixed."""

    def member(self, k: int) -> Batch:
        """The batch of one member, K = 1."""
        weight_1B = None if self.weight_KB is None else self.weight_KB[k : k + 1]
        mixed = None if self.mixed is None else self.mixed.member(k)
        return Batch(self.x_KB[k : k + 1], self.y_KB[k : k + 1], weight_1B, mixed)

    def own_K(self, strengths_K: Own) -> Own:
        """What the members' forward passes read besides the rows: strengths, and how the rows are mixed."""
        return strengths_K if self.mixed is None else {**strengths_K, **self.mixed.own_K}


class Step:
    """What K ≥ 1 members do inside a step; it holds no weights.

    Args:
        net: of the members' structure; its mode matters, its weights do not.
        scale_K: the members' scales of the target; empty for classification.
        generator: where random numbers come from; torch's global generator when absent, which alone
            a network of the user's own knows.
    """

    def __init__(
        self,
        recipe: Recipe,
        net: MemberNet,
        data: DeviceData,
        bags: BagWeights | None,
        scale_K: Mapping[str, Tensor],
        generator: torch.Generator | None = None,
    ) -> None:
        self.recipe, self.net, self.data, self.bags = recipe, net, data, bags
        self.scale_K, self.generator = scale_K, generator
        self.penalised = penalised(net)
        self.layers = roles(net, recipe.shared)
        self.channels_last = recipe.device.type == "cuda" and has_convolutions(net.body)
        """Whether a member's images lie with their channels last, which tensor cores read. On a CPU it was no
        gain: LeNet-5 10 % faster without batch norm and 15 % slower with it."""
        self.augment = None
        if recipe.members[0].augment:
            own_K = [m.augment for m in recipe.members]
            self.augment = build_augment(own_K, generator, white=data.dataset.white).to(recipe.device)
        draw_from(net, generator)
        self.sparse = Sparse(recipe.members, net.body, recipe.device)

    def seed(self, epoch: int, step_of_epoch: int) -> None:
        """Make the draws of a step (dropout, noise, augmentation) a function of pack, epoch and step."""
        if self.recipe.draws:
            self.recipe.seed("dropout", epoch, step_of_epoch, self.generator)

    def batch(self, batch: Tensor | StreamBatch) -> Batch:
        """The members' inputs and targets of one step, augmented, targets scaled, their mixing drawn.

        Args:
            batch: row numbers [K, B] of each member's own, or rows of the stream that all of them read.
        """
        if isinstance(batch, StreamBatch):
            rows_KB = batch.rows_B.expand(len(self.recipe.members), -1)
            x_KB = batch.x_B.expand(len(self.recipe.members), *batch.x_B.shape)
            weight_KB = self.bags.of(batch.rows_B) if self.bags else None
        else:
            rows_KB, x_KB, weight_KB = batch, self.data.take(batch), None
        y_KB = self._targets(rows_KB)
        if self.augment is not None:
            x_KB = as_pixels(self.augment(x_KB))
        mixing = self.recipe.mixing
        mixed = None if mixing is None else mixing.draw(x_KB, weight_KB, self.generator)
        return Batch(x_KB, y_KB, weight_KB, mixed)

    def _targets(self, rows_KB: Tensor) -> Tensor:
        """The rows' targets on the networks' scale [K, B(, T)]; where there is a teacher what it says of them."""
        if self.data.lesson_N is not None:
            return on_scale(gather(self.data.lesson_N, rows_KB), self.scale_K)
        y_KB, scale_K = self.data.targets(rows_KB), self.scale_K
        if scale_K:
            y_KB = (y_KB - scale_K["target_mean"].unsqueeze(1)) / scale_K["target_scale"].unsqueeze(1)
        return y_KB

    def losses(
        self,
        outputs_KBO: Tensor,
        batch: Batch,
        *,
        member: int | None = None,
        weights_K: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Each member's mean loss over its batch [K], penalties apart.

        Args:
            member: position in the stack of the only member whose batch this is.
            weights_K: the stacked weights, in which members of several tasks keep what each task counts.
        """
        rows_KB = self._task_rows(outputs_KBO, batch, member, (weights_K or {}).get(TASK_SCALE))
        return (rows_KB if batch.weight_KB is None else rows_KB * batch.weight_KB).mean(1)

    def _task_rows(
        self, outputs_KBO: Tensor, batch: Batch, member: int | None, log_variance_KT: Tensor | None
    ) -> Tensor:
        """Each row's loss [K, B]; of several tasks their weighted sum."""
        loss, y_KB, mixed = self.recipe.loss, batch.y_KB, batch.mixed
        if not isinstance(loss, Heads):
            return self._mixed_rows(loss, outputs_KBO, y_KB, mixed, member)
        each = [
            self._mixed_rows(head.loss, head.outputs(outputs_KBO), head.target(y_KB), mixed, member)
            for head in loss.taught
        ]
        return loss.total(each, log_variance_KT)

    def _mixed_rows(
        self, loss: ResolvedLoss, outputs_KBO: Tensor, y_KB: Tensor, mixed: Mixed | None, member: int | None
    ) -> Tensor:
        """Each row's loss [K, B]: of its target, or of its own and its partner's as they are mixed."""
        if mixed is None:
            return self._rows(loss, outputs_KBO, y_KB, member)
        other_KB = mixed.partners(y_KB)
        if not isinstance(loss, CrossEntropy):
            return self._rows(loss, outputs_KBO, mixed.mean(y_KB, other_KB), member)
        both = (self._rows(loss, outputs_KBO, y, member) for y in (y_KB, other_KB))
        return mixed.mean(*both)

    def _rows(self, loss: ResolvedLoss, outputs_KBO: Tensor, y_KB: Tensor, member: int | None) -> Tensor:
        """Each row's loss [K, B] for targets that are not mixed."""
        smoothing_K = self.recipe.smoothing_K
        if smoothing_K is not None and member is not None:
            smoothing_K = smoothing_K[member : member + 1]
        smoothing = None if smoothing_K is None else smoothing_K.repeat_interleave(y_KB.shape[1])
        outputs, y, lesson = outputs_KBO.flatten(0, 1), y_KB.flatten(0, 1), self.data.dataset.lesson
        if lesson is not None:
            rows = taught_rows(loss, outputs, y, lesson.temperature, smoothing)
        else:
            rows = loss_rows(loss, outputs, y, smoothing)
        return rows.unflatten(0, y_KB.shape[:2])

    def outputs_of(self, weights: Mapping[str, Tensor], x_B: Tensor, own: Own) -> Tensor:
        """One member's outputs [B, O] in training.

        Args:
            own: the member's values of ``Batch.own_K``.
        """
        body = part("body", weights)
        if "weight_noise" in own:
            noisy = [name.removeprefix("body.") for name in self.penalised]
            body |= {n: body[n] + own["weight_noise"] * normal_like(body[n], self.generator) for n in noisy}

        def through(module: nn.Module, state: Stack) -> Layer:
            return lambda x: functional_call(module, state, (x,))  # type: ignore[no-any-return]

        transform = through(self.net.transform, part("transform", weights))
        return self.outputs_by(transform, through(self.net.body, body), x_B, own)

    def outputs_by(self, transform: Layer, body: Layer, x_B: Tensor, own: Own) -> Tensor:
        """The outputs [B, O] of a member's transform and body, noise on its input between them."""
        if not self.data.transformed:
            x_B = transform(x_B)
        x_B = mix_one(x_B, own)
        if "input_noise" in own:
            x_B = x_B + own["input_noise"] * normal_like(x_B, self.generator)
        if self.channels_last and x_B.dim() == 4:
            x_B = torch.empty_like(x_B, memory_format=torch.channels_last).copy_(x_B)
        with arithmetic(self.recipe):
            return body(x_B).float()


def arithmetic(recipe: Recipe) -> AbstractContextManager[object]:
    """Products in bfloat16 where the recipe says so; weights, sums and losses stay float32."""
    if recipe.shared.precision != "bf16-mixed":
        return nullcontext()
    return torch.autocast(recipe.device.type, torch.bfloat16)


def compile_step(losses: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """The same function, compiled; on a GPU its kernels are recorded once and replayed as one launch."""
    mode = "reduce-overhead" if device.type == "cuda" else None
    return torch.compile(losses, mode=mode, dynamic=False)
