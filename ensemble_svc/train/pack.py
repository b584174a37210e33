"""K members at once on one device: the model alone runs under ``vmap``, one optimiser steps the stack.

The sum of the members' losses gives each member exactly its own gradient; members never mix.
Shapes: K members, S steps, B rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import vmap

from ensemble_svc.nn.member import MemberNet
from ensemble_svc.nn.noise import set_draws
from ensemble_svc.optim.schedule import factor
from ensemble_svc.optim.stacked import StackedOptimizer
from ensemble_svc.train.assemble import Stack, stack
from ensemble_svc.train.feed import DeviceData
from ensemble_svc.train.module import SlotModule
from ensemble_svc.train.recipe import Recipe


class PackModule(SlotModule):
    """Trains K networks of one structure as one stack of weights.

    A Lightning batch is a *block* of steps: at a fraction of a millisecond per step the loop's own
    cost would otherwise show.
    """

    def __init__(self, recipe: Recipe, nets: list[MemberNet], data: DeviceData) -> None:
        super().__init__(recipe, nets, data)
        self.automatic_optimization = False
        states = [net.state_dict() for net in nets]
        self._stack = {name: weight.to(recipe.device) for name, weight in stack(states).items()}
        self._net = nets[0].to(recipe.device)
        set_draws(self._net, self._stack)
        self._own = () if recipe.smoothing_K is None else (recipe.smoothing_K,)
        self._trained = {
            name: self._stack[name].requires_grad_()
            for name, p in nets[0].named_parameters()
            if p.requires_grad
        }
        self.optimizer = StackedOptimizer(self._trained, recipe.rules)
        self._losses = vmap(self.loss_of, randomness="different")

    @property
    def net(self) -> MemberNet:
        return self._net

    @property
    def weights(self) -> Stack:
        return self._stack

    def configure_optimizers(self) -> None:
        """None: the stacked optimiser is stepped here."""

    def training_step(self, block_SKB: Tensor, block_idx: int) -> None:
        self._net.train()
        for rows_KB in block_SKB.unbind(0):
            self.begin_step(len(self.step_losses))
            self.optimizer.zero_grad()
            x_KB, y_KB = self.batch(rows_KB)
            losses_K = self._losses(self._stack, x_KB, y_KB, *self._own)
            total_K = losses_K + self.recipe.penalty_K(self._stack, self.penalised)
            total_K.sum().backward()
            if self.recipe.shared.clip_norm is not None:
                clip_each(list(self._trained.values()), self.recipe.shared.clip_norm)
            self.optimizer.step(
                factor(self.recipe.shared.schedule, self.ledger.num_steps, self.recipe.total_steps)
            )
            self.end_step(losses_K.detach())

    def optimizer_state(self) -> Stack:
        return self.optimizer.state()

    def load(self, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], num_steps: int) -> None:
        with torch.no_grad():
            for name, value in weights.items():
                self._stack[name].copy_(value)
        self.optimizer.load(dict(optimizer), num_steps)


def clip_each(stacked: list[Tensor], largest: float) -> None:
    """Scale down each member's gradient whose norm over all its parameters exceeds ``largest``.

    The same as ``torch.nn.utils.clip_grad_norm_`` on each member alone.
    """
    grads = [p.grad for p in stacked if p.grad is not None]
    norm_K = torch.stack([g.flatten(1).norm(dim=1) for g in grads]).norm(dim=0)
    scale_K = (largest / (norm_K + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(scale_K.view(-1, *[1] * (grad.dim() - 1)))
