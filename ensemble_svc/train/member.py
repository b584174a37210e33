"""One member alone: the plain Lightning way, which every packed member must equal.

Shapes: K = 1 member, B rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from ensemble_svc.nn.member import MemberNet
from ensemble_svc.optim.schedule import factor
from ensemble_svc.optim.single import build, load_state, state_of
from ensemble_svc.train.assemble import Stack
from ensemble_svc.train.feed import DeviceData
from ensemble_svc.train.module import SlotModule
from ensemble_svc.train.recipe import Recipe


class MemberModule(SlotModule):
    """Trains one network with torch's own optimiser, one Lightning batch per step."""

    def __init__(self, recipe: Recipe, nets: list[MemberNet], data: DeviceData) -> None:
        super().__init__(recipe, nets, data)
        self.member = nets[0].to(recipe.device)
        trained = {name: p for name, p in self.member.named_parameters() if p.requires_grad}
        self.rule, self.names = build(recipe.rules[0], trained.values()), list(trained)
        self._views = {name: w.detach().unsqueeze(0) for name, w in self.member.state_dict().items()}

    @property
    def net(self) -> MemberNet:
        return self.member

    @property
    def weights(self) -> Stack:
        return self._views

    def configure_optimizers(self) -> OptimizerLRScheduler:
        schedule, total = self.recipe.shared.schedule, self.recipe.total_steps
        done = self.ledger.num_steps
        rate = torch.optim.lr_scheduler.LambdaLR(self.rule, lambda step: factor(schedule, done + step, total))
        return {"optimizer": self.rule, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def training_step(self, rows_KB: Tensor, batch_idx: int) -> Tensor:
        self.member.train()
        self.begin_step(len(self.step_losses))
        x_KB, y_KB = self.batch(self.share.take(rows_KB))
        state = {**dict(self.member.named_parameters()), **dict(self.member.named_buffers())}
        loss = self.share.weigh(self.loss_of(state, x_KB[0], y_KB[0]))
        self._loss_K = loss.detach().unsqueeze(0)
        penalty = self.recipe.penalty_K({n: p.unsqueeze(0) for n, p in state.items()}, self.penalised)
        return loss + (penalty.squeeze(0) if isinstance(penalty, Tensor) else penalty)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.end_step(self._loss_K)

    def optimizer_state(self) -> Stack:
        state = state_of(self.rule, self.names)
        return {name: value.unsqueeze(0) for name, value in state.items()}

    def load(self, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], num_steps: int) -> None:
        with torch.no_grad():
            for name, value in weights.items():
                self._views[name].copy_(value)
        load_state(self.rule, self.names, {name: v[0] for name, v in optimizer.items()}, num_steps)
