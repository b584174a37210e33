"""One member alone, with torch's own optimiser: what every packed member must equal.

Shapes: K = 1 member, B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from threading import Event
from typing import Any

import torch
from torch import Tensor

from ensemble_svc.nn.member import MemberNet
from ensemble_svc.optim.single import build, load_state, set_factor, state_of
from ensemble_svc.plan.strands import strands
from ensemble_svc.train.assemble import Assembled, Stack, own_state
from ensemble_svc.train.feed import DeviceData
from ensemble_svc.train.module import SlotModule
from ensemble_svc.train.recipe import Own, Recipe
from ensemble_svc.train.step import Step, compile_step
from ensemble_svc.train.strand import beside
from ensemble_svc.train.stream import BagWeights, StreamBatch


class MemberModule(SlotModule):
    """Trains one network.

    By itself it steps through blocks of batches as a pack does: Lightning's own loop took as long as
    the step of a small network. Over several processes each batch is a Lightning step, its gradients
    averaged by the strategy.
    """

    def __init__(
        self,
        recipe: Recipe,
        start: Assembled,
        data: DeviceData,
        bags: BagWeights | None = None,
        *,
        compiled: bool = False,
    ) -> None:
        super().__init__(recipe, start, data)
        self.member = start.net.to(recipe.device)
        self.inside = Step(recipe, self.member, data, bags, self.scale_K)
        trained = {name: p for name, p in self.member.named_parameters() if p.requires_grad}
        self.rule = build(recipe.rules[0], trained, self.inside.layers)
        self._outputs = (
            compile_step(self._outputs_of_own, recipe.device) if compiled else self._outputs_of_own
        )
        self._views = {name: w.unsqueeze(0) for name, w in own_state(self.member).items()}

    @property
    def net(self) -> MemberNet:
        return self.member

    @property
    def weights(self) -> Stack:
        return self._views

    @property
    def alone(self) -> bool:
        """Whether no other process trains this member."""
        return self.share.processes == 1

    def configure_optimizers(self) -> torch.optim.Optimizer | None:
        """None where the optimiser is stepped here."""
        self.automatic_optimization = not self.alone
        return None if self.alone else self.rule

    def training_step(self, block: Tensor | StreamBatch, block_idx: int) -> Tensor | None:
        self.member.train()
        if not self.alone:
            return self._loss_of(block)
        cores = torch.get_num_threads()
        threads = strands(self.recipe.core_s, 1, cores, in_turn=True).threads
        beside([partial(self._steps, block)], threads)
        return None

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Called by Lightning once the processes' gradients are averaged."""
        self._clip()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not self.alone:
            self._end_step()

    def optimizer_state(self) -> Stack:
        state = state_of(self.rule)
        return {name: value.unsqueeze(0) for name, value in state.items()}

    def load(self, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], num_steps: int) -> None:
        with torch.no_grad():
            for name, value in weights.items():
                self._views[name].copy_(value)
        # A pack that it was a part of may have had more running values, for other members.
        own = [name for name in state_of(self.rule) if name in optimizer]
        load_state(self.rule, {name: optimizer[name][0] for name in own}, num_steps)

    def _steps(self, block: Tensor | StreamBatch, halt: Event) -> None:
        for rows in block.unbind(0) if isinstance(block, Tensor) else (block,):
            self.rule.zero_grad()
            self._loss_of(rows).backward()
            self._clip()
            self.rule.step()
            self._end_step()

    def _loss_of(self, rows: Tensor | StreamBatch) -> Tensor:
        """What is minimised in one step; the rate is set for it."""
        self.inside.seed(self.first_epoch + self.current_epoch, len(self.step_losses))
        if self.recipe.draws:
            self.share.draw_apart()
        set_factor(self.rule, self.recipe.factor_of_each(self.ledger.num_steps)[0])
        batch = self.inside.batch(self.share.take(rows))
        own = {name: values_K[0] for name, values_K in batch.own_K(self.recipe.own_K).items()}
        outputs_BO = self._outputs(batch.x_KB[0], own)
        loss_K = self.share.weigh(self.inside.losses(outputs_BO.unsqueeze(0), batch))
        self._loss_K = loss_K.detach()
        if self.inside.sparse.terms:
            loss_K = loss_K + self.inside.sparse.penalty_K(batch.weight_KB, member=0)
        if not self.recipe.penalties:
            return loss_K.squeeze(0)
        weights = {name: p.unsqueeze(0) for name, p in self.member.named_parameters()}
        return (loss_K + self.recipe.penalty_K(weights, self.inside.penalised)).squeeze(0)

    def _end_step(self) -> None:
        if self.recipe.constrains:
            factor = self.recipe.factors(self.ledger.num_steps)
            self.recipe.constrain(self._views, self.inside.penalised, factor, self.inside.layers)
        self.step_losses.append(self._loss_K)
        self.ledger.step(self.weights)

    def _outputs_of_own(self, x_B: Tensor, own: Own) -> Tensor:
        """The network's outputs; it is called as it stands unless its weights are to be changed."""
        if "weight_noise" in own:
            state = {**dict(self.member.named_parameters()), **dict(self.member.named_buffers())}
            return self.inside.outputs_of(state, x_B, own)
        transform: Callable[[Tensor], Tensor] = self.member.transform
        return self.inside.outputs_by(transform, self.member.body, x_B, own)

    def _clip(self) -> None:
        largest = self.recipe.shared.clip_norm
        if largest is not None:
            torch.nn.utils.clip_grad_norm_(self.member.parameters(), largest)
