"""What a member alone and a pack have in common: the view that the callbacks hold.

Shapes: K members, S steps of an epoch, B rows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import lightning as L
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ensemble_svc.data.augment import build_augment
from ensemble_svc.nn.heads import loss_rows
from ensemble_svc.nn.member import MemberNet
from ensemble_svc.nn.packed import has_convolutions
from ensemble_svc.nn.regularize import penalised
from ensemble_svc.train.assemble import Assembled, Stack, part
from ensemble_svc.train.feed import ROWS_AT_ONCE, DeviceData
from ensemble_svc.train.forward import predict
from ensemble_svc.train.ledger import Ledger
from ensemble_svc.train.recipe import Own, Recipe
from ensemble_svc.train.share import ALONE
from ensemble_svc.train.stream import BagWeights, StreamBatch

Layer = Callable[[Tensor], Tensor]


class Batch(NamedTuple):
    """One step's data, a batch for each member."""

    x_KB: Tensor
    y_KB: Tensor
    weight_KB: Tensor | None = None
    """How much each row counts, mean 1 over the training rows; None where all count alike."""


class SlotModule(L.LightningModule):
    """K ≥ 1 members in training; reads no file and knows nothing of other slots."""

    def __init__(
        self, recipe: Recipe, start: Assembled, data: DeviceData, bags: BagWeights | None = None
    ) -> None:
        super().__init__()
        self.recipe, self.data, self.bags = recipe, data, bags
        self.penalised = penalised(start.net)
        self.channels_last = recipe.device.type == "cuda" and has_convolutions(start.net.body)
        """Whether a member's images lie with their channels last, which tensor cores read. On a CPU it was no
        gain: LeNet-5 10 % faster without batch norm and 15 % slower with it."""
        self.augment = augment_of(recipe)
        self.share = ALONE
        self.step_losses: list[Tensor] = []
        self.first_epoch = 0
        self.scale_K: Stack = {}
        """Scales of the targets of all members of the pack; empty for classification."""
        if "target_mean" in start.stack:
            names = ("target_mean", "target_scale", "noise_log_variance")
            self.scale_K = {name: start.stack[name].clone().to(recipe.device) for name in names}
        self.own_scale_K = self.scale_K
        """Those of the members that stand in the stack."""

    @property
    @abstractmethod
    def weights(self) -> Stack:
        """Live parameters and buffers of the members, [K, …] by name."""

    @abstractmethod
    def optimizer_state(self) -> Stack:
        """Live tensors of the update rule, [K, …] by ``slot/parameter``."""

    @abstractmethod
    def load(self, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], num_steps: int) -> None:
        """Take over a committed state."""

    def drop(self, keep: list[int]) -> None:
        """Go on with the members at these positions of the stack; a member alone has none to drop."""

    @property
    @abstractmethod
    def net(self) -> MemberNet:
        """A network of the members' structure; its own weights do not matter."""

    def keep_books(self, ledger: Ledger) -> None:
        """Hand over the ledger that accounts for each step."""
        self.ledger = ledger

    def begin_step(self, step_of_epoch: int) -> None:
        """Seed the draws inside a step (dropout, noise, augmentation) from pack, epoch and step."""
        if self.recipe.draws:
            self.recipe.seed("dropout", self.first_epoch + self.current_epoch, step_of_epoch)
            self.share.draw_apart()

    def end_step(self, losses_K: Tensor) -> None:
        """Account for a finished step."""
        self.step_losses.append(losses_K)
        self.ledger.step(self.weights)

    @property
    def last_rates(self) -> list[float]:
        """Each member's learning rate at the last step taken."""
        factors = self.recipe.factors(max(0, self.ledger.num_steps - 1))
        each = factors if isinstance(factors, list) else [factors] * len(self.recipe.members)
        return [rule.lr * factor for rule, factor in zip(self.recipe.rules, each, strict=True)]

    def take_losses(self) -> Tensor:
        """The epoch's losses [S, K], once."""
        losses_SK = torch.stack(self.step_losses)
        self.step_losses = []
        return self.share.mean(losses_SK)

    def batch(self, batch: Tensor | StreamBatch) -> Batch:
        """The members' inputs and targets of one step, augmented, targets scaled.

        Args:
            batch: row numbers [K, B] of each member's own, or rows of the stream that all of them read.
        """
        if isinstance(batch, StreamBatch):
            rows_KB = batch.rows_B.expand(len(self.recipe.members), -1)
            x_KB = batch.x_B.expand(len(self.recipe.members), *batch.x_B.shape)
            weight_KB = self.bags.of(batch.rows_B) if self.bags else None
        else:
            rows_KB, x_KB, weight_KB = batch, self.data.take(batch), None
        y_KB = self.data.targets(rows_KB)
        if self.augment is not None:
            x_KB = as_pixels(self.augment(x_KB))
        if scale_K := self.own_scale_K:
            y_KB = (y_KB - scale_K["target_mean"].unsqueeze(1)) / scale_K["target_scale"].unsqueeze(1)
        return Batch(x_KB, y_KB, weight_KB)

    def losses(self, outputs_KBO: Tensor, batch: Batch, *, member: int | None = None) -> Tensor:
        """Each member's mean loss over its batch [K], penalties apart.

        Args:
            member: position in the stack of the only member whose batch this is.
        """
        y_KB = batch.y_KB
        smoothing_K = self.recipe.smoothing_K
        if smoothing_K is not None and member is not None:
            smoothing_K = smoothing_K[member : member + 1]
        smoothing = None if smoothing_K is None else smoothing_K.repeat_interleave(y_KB.shape[1])
        rows = loss_rows(self.recipe.loss, outputs_KBO.flatten(0, 1), y_KB.flatten(0, 1), smoothing)
        rows_KB = rows.unflatten(0, y_KB.shape[:2])
        return (rows_KB if batch.weight_KB is None else rows_KB * batch.weight_KB).mean(1)

    def outputs_of(self, weights: Mapping[str, Tensor], x_B: Tensor, own: Own) -> Tensor:
        """One member's outputs [B, O] in training.

        Args:
            own: the member's values of ``Recipe.own_K``.
        """
        body = part("body", weights)
        if "weight_noise" in own:
            noisy = [name.removeprefix("body.") for name in self.penalised]
            body |= {n: body[n] + own["weight_noise"] * torch.randn_like(body[n]) for n in noisy}

        def through(module: nn.Module, state: Stack) -> Layer:
            return lambda x: functional_call(module, state, (x,))  # type: ignore[no-any-return]

        transform = through(self.net.transform, part("transform", weights))
        return self.outputs_by(transform, through(self.net.body, body), x_B, own)

    def outputs_by(self, transform: Layer, body: Layer, x_B: Tensor, own: Own) -> Tensor:
        """The outputs [B, O] of a member's transform and body, noise on its input between them."""
        if not self.data.transformed:
            x_B = transform(x_B)
        if "input_noise" in own:
            x_B = x_B + own["input_noise"] * torch.randn_like(x_B)
        if self.channels_last and x_B.dim() == 4:
            x_B = torch.empty_like(x_B, memory_format=torch.channels_last).copy_(x_B)
        with arithmetic(self.recipe):
            return body(x_B).float()

    def predict_rows(
        self, weights_K: Mapping[str, Tensor], rows_N: Tensor, *, scale_K: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Predictions [K, N, …] of members on rows of the data, in the target's own units.

        Args:
            scale_K: target scales of just these members; all members' when absent.
        """
        net, own = self.reader(weights_K)
        scales = self.scale_K if scale_K is None else scale_K
        pieces = rows_N.split(ROWS_AT_ONCE) if self.data.streamed else (rows_N,)
        with arithmetic(self.recipe):
            parts = [
                predict(net, own, self.recipe.loss, self.data.take(rows), scale_K=scales) for rows in pieces
            ]
        return {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}

    def reader(self, weights: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
        """The part of the network that reads the data as it lies on the device, with its weights."""
        if not self.data.transformed:
            return self.net, dict(weights)
        return self.net.body, part("body", weights)


def augment_of(recipe: Recipe) -> nn.Module | None:
    """The members' augmentation, each at its own strength; None without one."""
    if not recipe.members[0].augment:
        return None
    return build_augment([member.augment for member in recipe.members]).to(recipe.device)


def arithmetic(recipe: Recipe) -> AbstractContextManager[object]:
    """Products in bfloat16 where the recipe says so; weights, sums and losses stay float32."""
    if recipe.shared.precision != "bf16-mixed":
        return nullcontext()
    return torch.autocast(recipe.device.type, torch.bfloat16)


def compile_step(losses: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """The same function, compiled; on a GPU its kernels are recorded once and replayed as one launch."""
    mode = "reduce-overhead" if device.type == "cuda" else None
    return torch.compile(losses, mode=mode, dynamic=False)


def as_pixels(x_N: Tensor) -> Tensor:
    """Bytes as numbers from 0 to 1, the form in which a transform takes float images."""
    return x_N.float() / 255 if x_N.dtype == torch.uint8 else x_N
