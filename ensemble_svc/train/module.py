"""What a member alone and a pack have in common: the view that the callbacks hold.

Shapes: K members, S steps of an epoch, B rows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import lightning as L
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ensemble_svc.nn.heads import loss_rows
from ensemble_svc.nn.member import MemberNet
from ensemble_svc.nn.regularize import penalised
from ensemble_svc.train.assemble import Stack, part, stack
from ensemble_svc.train.feed import DeviceData
from ensemble_svc.train.forward import predict
from ensemble_svc.train.ledger import Ledger
from ensemble_svc.train.recipe import Own, Recipe


class SlotModule(L.LightningModule):
    """K ≥ 1 members in training; reads no file and knows nothing of other slots."""

    def __init__(self, recipe: Recipe, nets: list[MemberNet], data: DeviceData) -> None:
        super().__init__()
        self.recipe, self.data = recipe, data
        self.penalised = penalised(nets[0])
        self.augment = _augment(recipe)
        self.step_losses: list[Tensor] = []
        self.first_epoch = 0
        self.scale_K: Stack = {}
        """Scales of the targets of all members of the pack; empty for classification."""
        if hasattr(nets[0], "target_mean"):
            names = ("target_mean", "target_scale", "noise_log_variance")
            self.scale_K = stack([{n: getattr(net, n).to(recipe.device) for n in names} for net in nets])
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
        return losses_SK

    def batch(self, rows_KB: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [K, B, …] and targets [K, B(, T)] of the members' rows, augmented, targets scaled."""
        x_KB = gather(self.data.x_N, rows_KB)
        y_KB = gather(self.data.y_N, rows_KB)
        if self.augment is not None:
            x_KB = self.augment(as_pixels(x_KB.flatten(0, 1))).unflatten(0, rows_KB.shape)
        if scale_K := self.own_scale_K:
            y_KB = (y_KB - scale_K["target_mean"].unsqueeze(1)) / scale_K["target_scale"].unsqueeze(1)
        return x_KB, y_KB

    def losses(self, outputs_KBO: Tensor, y_KB: Tensor) -> Tensor:
        """Each member's mean loss over its batch [K], penalties apart."""
        rows = loss_rows(self.recipe.loss, outputs_KBO.flatten(0, 1), y_KB.flatten(0, 1))
        return rows.unflatten(0, y_KB.shape[:2]).mean(1)

    def outputs_of(self, weights: Mapping[str, Tensor], x_B: Tensor, own: Own) -> Tensor:
        """One member's outputs [B, O] in training.

        Args:
            own: the member's values of ``Recipe.own_K``.
        """
        body = part("body", weights)
        if not self.data.transformed:
            transform = part("transform", weights)
            x_B = functional_call(self.net.transform, transform, (x_B,))
        if "input_noise" in own:
            x_B = x_B + own["input_noise"] * torch.randn_like(x_B)
        if "weight_noise" in own:
            noisy = [name.removeprefix("body.") for name in self.penalised]
            body |= {n: body[n] + own["weight_noise"] * torch.randn_like(body[n]) for n in noisy}
        with arithmetic(self.recipe):
            outputs_BO: Tensor = functional_call(self.net.body, body, (x_B,))
        return outputs_BO.float()

    def predict_rows(
        self, weights_K: Mapping[str, Tensor], rows_N: Tensor, *, scale_K: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Predictions [K, N, …] of members on rows of the data, in the target's own units.

        Args:
            scale_K: target scales of just these members; all members' when absent.
        """
        net, own = self.reader(weights_K)
        x_N = self.data.x_N.index_select(0, rows_N)
        scales = self.scale_K if scale_K is None else scale_K
        with arithmetic(self.recipe):
            return predict(net, own, self.recipe.loss, x_N, scale_K=scales)

    def reader(self, weights: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
        """The part of the network that reads the data as it lies on the device, with its weights."""
        if not self.data.transformed:
            return self.net, dict(weights)
        return self.net.body, part("body", weights)


def _augment(recipe: Recipe) -> nn.Module | None:
    choices = recipe.members[0].augment
    if not choices:
        return None
    from ensemble_svc.data.augment import build_augment  # kornia takes two seconds to load

    return build_augment(choices)


def arithmetic(recipe: Recipe) -> AbstractContextManager[object]:
    """Products in bfloat16 where the recipe says so; weights, sums and losses stay float32."""
    if recipe.shared.precision != "bf16-mixed":
        return nullcontext()
    return torch.autocast(recipe.device.type, torch.bfloat16)


def compile_step(losses: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """The same function, compiled; on a GPU its kernels are recorded once and replayed as one launch."""
    mode = "reduce-overhead" if device.type == "cuda" else None
    return torch.compile(losses, mode=mode, dynamic=False)


def gather(values_N: Tensor, rows_KB: Tensor) -> Tensor:
    """``values_N[rows_KB]``, as one flat selection."""
    return values_N.index_select(0, rows_KB.flatten()).unflatten(0, rows_KB.shape)


def as_pixels(x_N: Tensor) -> Tensor:
    """Bytes as numbers from 0 to 1, the form in which a transform takes float images."""
    return x_N.float() / 255 if x_N.dtype == torch.uint8 else x_N
