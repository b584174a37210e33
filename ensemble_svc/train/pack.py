"""K members at once on one device: one forward pass of stacked weights, one optimiser stepping the stack.

Networks of the zoo are written out (``nn/packed.py``); the user's own run under ``torch.func.vmap``. On a
CPU networks of convolutions go through the pass member by member, which is faster there.

The sum of the members' losses gives each member exactly its own gradient; members never mix.
Shapes: K members, S steps, B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from ensemble_svc.nn import packed
from ensemble_svc.nn.member import MemberNet
from ensemble_svc.nn.noise import set_draws
from ensemble_svc.optim.blocks import as_gradients_come
from ensemble_svc.optim.stacked import StackedOptimizer
from ensemble_svc.train.assemble import Assembled, Stack, part
from ensemble_svc.train.feed import DeviceData
from ensemble_svc.train.module import Batch, SlotModule, arithmetic, augment_of, compile_step
from ensemble_svc.train.recipe import Own, Recipe
from ensemble_svc.train.stream import BagWeights, StreamBatch


class PackModule(SlotModule):
    """Trains K networks of one structure as one stack of weights.

    A Lightning batch is a *block* of steps: at a fraction of a millisecond per step the loop's own
    cost would otherwise show.
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
        super().__init__(recipe, start, data, bags)
        self.automatic_optimization = False
        self._stack = {name: weight.to(recipe.device) for name, weight in start.stack.items()}
        self._net = start.net.to(recipe.device)
        set_draws(self._net, self._stack)
        names = [name for name, p in start.net.named_parameters() if p.requires_grad]
        self._goes_in_turn = packed.goes_in_turn(self._net.body, recipe.device)
        self._stack |= {n: as_gradients_come(self._stack[n]) for n in names if self._stack[n].dim() == 3}
        self._trained = {name: self._stack[name].requires_grad_() for name in names}
        self.optimizer = StackedOptimizer(self._trained, recipe.rules, paces=recipe.paces)
        self._outputs = compile_step(self._way(), recipe.device) if compiled else self._way()
        self._transform = vmap(self._transformed)
        self._read = [n for n in self._stack if n.startswith("body.") or not data.transformed]

    @property
    def net(self) -> MemberNet:
        return self._net

    @property
    def weights(self) -> Stack:
        return self._stack

    def configure_optimizers(self) -> None:
        """None: the stacked optimiser is stepped here."""

    def training_step(self, block: Tensor | StreamBatch, block_idx: int) -> None:
        self._net.train()
        for rows in block.unbind(0) if isinstance(block, Tensor) else (block,):
            self.begin_step(len(self.step_losses))
            self.step(self.batch(rows))

    def step(self, batch: Batch) -> None:
        """One optimiser step of every member on its own batch."""
        self.optimizer.zero_grad()
        losses_K = self._in_turn(batch) if self._goes_in_turn else self._at_once(batch)
        if self.recipe.clip_K is not None:
            clip_each(list(self._trained.values()), self.recipe.clip_K)
        self.optimizer.step(self.recipe.factors(self.ledger.num_steps))
        self.end_step(losses_K)

    def _at_once(self, batch: Batch) -> Tensor:
        """Losses [K] of all members in one pass, and the gradients of the stack."""
        reads = {name: self._stack[name] for name in self._read}
        losses_K = self.losses(self._outputs(reads, batch.x_KB, self.recipe.own_K), batch)
        total_K = losses_K + self.recipe.penalty_K(self._stack, self.penalised)
        total_K.sum().backward()
        return losses_K.detach()

    def _in_turn(self, batch: Batch) -> Tensor:
        """The same, one member after another: each works on its slices, and its gradients are slices too."""
        for weight in self._trained.values():
            weight.grad = torch.zeros_like(weight)
        losses = [self._one(k, batch) for k in range(len(batch.x_KB))]
        return torch.stack(losses)

    def _one(self, k: int, batch: Batch) -> Tensor:
        slices = {name: self._stack[name].detach()[k] for name in self._read}
        for name, weight in self._trained.items():
            slices[name].requires_grad_()
            slices[name].grad = weight.grad[k] if weight.grad is not None else None
        own = {name: values_K[k] for name, values_K in self.recipe.own_K.items()}
        weight_1B = batch.weight_KB[k : k + 1] if batch.weight_KB is not None else None
        mine = Batch(batch.x_KB[k : k + 1], batch.y_KB[k : k + 1], weight_1B)
        outputs_1BO = self._outputs(slices, mine.x_KB[0], own).unsqueeze(0)
        loss_1 = self.losses(outputs_1BO, mine, member=k)
        stacked = {name: slices[name].unsqueeze(0) for name in self.penalised}
        (loss_1 + self.recipe.penalty_K(stacked, self.penalised, member=k)).sum().backward()
        return loss_1.detach().squeeze(0)

    def _way(self) -> Callable[..., Tensor]:
        """How outputs are computed: of a member at a time, of a known network's stack, or of any stack."""
        if self._goes_in_turn:
            return self.outputs_of
        if packed.is_known(self._net.body):
            return self._outputs_written_out
        return vmap(self.outputs_of, randomness="different")

    def _outputs_written_out(self, weights_K: Stack, x_KB: Tensor, own_K: Own) -> Tensor:
        """As ``outputs_of`` for all members at once."""
        if not self.data.transformed:
            x_KB = self._transform(part("transform", weights_K), x_KB)
        if "input_noise" in own_K:
            x_KB = x_KB + along(own_K["input_noise"], x_KB) * torch.randn_like(x_KB)
        body = part("body", weights_K)
        if "weight_noise" in own_K:
            noisy = {name.removeprefix("body."): weights_K[name] for name in self.penalised}
            body |= {n: w + along(own_K["weight_noise"], w) * torch.randn_like(w) for n, w in noisy.items()}
        with arithmetic(self.recipe):
            return packed.forward(self._net.body, body, x_KB).float()

    def _transformed(self, transform: Stack, x_B: Tensor) -> Tensor:
        found: Tensor = functional_call(self._net.transform, transform, (x_B,))
        return found

    def optimizer_state(self) -> Stack:
        return self.optimizer.state()

    def drop(self, keep: list[int]) -> None:
        """Go on with the members at these positions of the stack; the others are left out of every step."""
        index = torch.tensor(keep, device=self.recipe.device)
        self.recipe = self.recipe.select(keep)
        self.optimizer = self.optimizer.compact(index)
        self._trained = self.optimizer.params
        with torch.no_grad():
            rest = {n: w.index_select(0, index) for n, w in self._stack.items() if n not in self._trained}
        self._stack = {
            name: self._trained[name] if name in self._trained else rest[name] for name in self._stack
        }
        set_draws(self._net, self._stack)
        self.augment = augment_of(self.recipe)
        if self.bags:
            self.bags.drop(keep)
        self.own_scale_K = {name: scale.index_select(0, index) for name, scale in self.own_scale_K.items()}

    def load(self, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], num_steps: int) -> None:
        with torch.no_grad():
            for name, value in weights.items():
                self._stack[name].copy_(value)
        self.optimizer.load(dict(optimizer), num_steps)


def clip_each(stacked: list[Tensor], largest_K: Tensor) -> None:
    """Scale down each member's gradient whose norm over all its parameters exceeds its ``largest_K``.

    The same as ``torch.nn.utils.clip_grad_norm_`` on each member alone.
    """
    grads = [p.grad for p in stacked if p.grad is not None]
    norm_K = torch.stack([g.flatten(1).norm(dim=1) for g in grads]).norm(dim=0)
    scale_K = (largest_K / (norm_K + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(along(scale_K, grad))


def along(values_K: Tensor, stacked: Tensor) -> Tensor:
    """A value per member, to broadcast over a stack."""
    return values_K.view(-1, *[1] * (stacked.dim() - 1))
