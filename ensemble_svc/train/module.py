"""What a member alone and a pack have in common: the view that the callbacks hold.

Shapes: K members, S steps of an epoch, B rows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import lightning as L
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ensemble_svc.nn.heads import loss_rows
from ensemble_svc.nn.member import MemberNet
from ensemble_svc.nn.regularize import penalised
from ensemble_svc.optim.schedule import factor
from ensemble_svc.train.assemble import Stack, stack
from ensemble_svc.train.feed import DeviceData
from ensemble_svc.train.forward import predict
from ensemble_svc.train.ledger import Ledger
from ensemble_svc.train.recipe import Recipe
from ensemble_svc.train.share import ALONE


class SlotModule(L.LightningModule):
    """K ≥ 1 members in training; reads no file and knows nothing of other slots."""

    def __init__(self, recipe: Recipe, nets: list[MemberNet], data: DeviceData) -> None:
        super().__init__()
        self.recipe, self.data = recipe, data
        self.penalised = penalised(nets[0])
        self.augment = _augment(recipe)
        self.share = ALONE
        self.step_losses: list[Tensor] = []
        self.first_epoch = 0
        self.scale_K: Stack = {}
        if hasattr(nets[0], "target_mean"):
            names = ("target_mean", "target_scale", "noise_log_variance")
            self.scale_K = stack([{n: getattr(net, n).to(recipe.device) for n in names} for net in nets])

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

    @property
    @abstractmethod
    def net(self) -> MemberNet:
        """A network of the members' structure; its own weights do not matter."""

    def keep_books(self, ledger: Ledger) -> None:
        """Hand over the ledger that accounts for each step."""
        self.ledger = ledger

    def begin_step(self, step_of_epoch: int) -> None:
        """Seed the draws inside a step (dropout, augmentation) from member, epoch and step."""
        self.recipe.seed("dropout", self.first_epoch + self.current_epoch, step_of_epoch)
        self.share.draw_apart()

    def end_step(self, losses_K: Tensor) -> None:
        """Account for a finished step."""
        self.step_losses.append(losses_K)
        self.ledger.step(self.weights)

    @property
    def last_factor(self) -> float:
        """The schedule's factor at the last step taken."""
        return factor(self.recipe.shared.schedule, max(0, self.ledger.num_steps - 1), self.recipe.total_steps)

    def take_losses(self) -> Tensor:
        """The epoch's losses [S, K], once."""
        losses_SK = torch.stack(self.step_losses)
        self.step_losses = []
        return self.share.mean(losses_SK)

    def batch(self, rows_KB: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [K, B, …] and targets [K, B(, T)] of the members' rows, augmented, targets scaled."""
        x_KB = gather(self.data.x_N, rows_KB)
        y_KB = gather(self.data.y_N, rows_KB)
        if self.augment is not None:
            x_KB = self.augment(as_pixels(x_KB.flatten(0, 1))).unflatten(0, rows_KB.shape)
        if self.scale_K:
            y_KB = (y_KB - self.scale_K["target_mean"].unsqueeze(1)) / self.scale_K["target_scale"].unsqueeze(
                1
            )
        return x_KB, y_KB

    def loss_of(self, weights: Mapping[str, Tensor], x_B: Tensor, y_B: Tensor) -> Tensor:
        """One member's mean loss over its batch, penalties apart."""
        net, own = self.reader(weights)
        outputs_BO: Tensor = functional_call(net, own, (x_B,))
        return loss_rows(self.recipe.loss, outputs_BO, y_B).mean()

    def predict_rows(
        self, weights_K: Mapping[str, Tensor], rows_N: Tensor, *, scale_K: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Predictions [K, N, …] of members on rows of the data, in the target's own units.

        Args:
            scale_K: target scales of just these members; all members' when absent.
        """
        net, own = self.reader(weights_K)
        x_N = self.data.x_N.index_select(0, rows_N)
        return predict(net, own, self.recipe.loss, x_N, scale_K=self.scale_K if scale_K is None else scale_K)

    def reader(self, weights: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
        """The part of the network that reads the data as it lies on the device, with its weights."""
        if not self.data.transformed:
            return self.net, dict(weights)
        own = {n.removeprefix("body."): w for n, w in weights.items() if n.startswith("body.")}
        return self.net.body, own


def _augment(recipe: Recipe) -> nn.Module | None:
    choices = recipe.members[0].augment
    if not choices:
        return None
    from ensemble_svc.data.augment import build_augment  # kornia takes two seconds to load

    return build_augment(choices)


def gather(values_N: Tensor, rows_KB: Tensor) -> Tensor:
    """``values_N[rows_KB]``, as one flat selection."""
    return values_N.index_select(0, rows_KB.flatten()).unflatten(0, rows_KB.shape)


def as_pixels(x_N: Tensor) -> Tensor:
    """Bytes as numbers from 0 to 1, the form in which a transform takes float images."""
    return x_N.float() / 255 if x_N.dtype == torch.uint8 else x_N
