"""What a member alone and a pack have in common: the view that the callbacks hold.

Shapes: K members, S steps of an epoch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial

import lightning as L
import torch
from torch import Tensor, nn

from ensemble_svc.nn.member import SCALES, MemberNet
from ensemble_svc.train.assemble import Assembled, Stack, part
from ensemble_svc.train.feed import ROWS_AT_ONCE, DeviceData
from ensemble_svc.train.forward import predict, predict_dropped
from ensemble_svc.train.ledger import Ledger
from ensemble_svc.train.recipe import Recipe
from ensemble_svc.train.share import ALONE
from ensemble_svc.train.step import arithmetic


class SlotModule(L.LightningModule):
    """K ≥ 1 members in training; reads no file and knows nothing of other slots."""

    def __init__(self, recipe: Recipe, start: Assembled, data: DeviceData) -> None:
        super().__init__()
        self.recipe, self.data = recipe, data
        self.share = ALONE
        self.step_losses: list[Tensor] = []
        self.first_epoch = 0
        self.scale_K: Stack = {}
        """Scales of the targets of all members of the pack; empty for classification."""
        if "target_mean" in start.stack:
            self.scale_K = {name: start.stack[name].clone().to(recipe.device) for name in SCALES}
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

    @property
    def last_rates(self) -> list[float]:
        """Each member's learning rate at the last step taken."""
        each = self.recipe.factor_of_each(max(0, self.ledger.num_steps - 1))
        return [rule.rate * factor for rule, factor in zip(self.recipe.rules, each, strict=True)]

    def take_losses(self) -> Tensor:
        """The epoch's losses [S, K], once."""
        losses_SK = torch.stack(self.step_losses)
        self.step_losses = []
        return self.share.mean(losses_SK)

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

    def predict_dropped(
        self, weights_K: Mapping[str, Tensor], rows_N: Tensor, draws: Sequence[tuple[int, int]]
    ) -> dict[str, Tensor]:
        """Predictions [S, N, …] of members with dropout, each a member's position and the seed of its draw."""
        net, own = self.reader(weights_K)
        pieces = rows_N.split(ROWS_AT_ONCE) if self.data.streamed else (rows_N,)
        found = partial(predict_dropped, net, own, self.recipe.loss, scale_K=self.scale_K, draws=draws)
        with arithmetic(self.recipe):
            parts = [found(self.data.take(rows)) for rows in pieces]
        return {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}

    def reader(self, weights: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
        """The part of the network that reads the data as it lies on the device, with its weights."""
        if not self.data.transformed:
            return self.net, dict(weights)
        return self.net.body, part("body", weights)
