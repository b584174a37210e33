"""K members at once on one device, as one stack of weights that strands train.

Shapes: K members, S steps, B rows.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from ensemble_svc.nn import packed
from ensemble_svc.nn.member import MemberNet
from ensemble_svc.optim.blocks import as_gradients_come, gathered
from ensemble_svc.plan.strands import Strands, strands
from ensemble_svc.train.assemble import Assembled, Stack
from ensemble_svc.train.feed import DeviceData
from ensemble_svc.train.module import SlotModule
from ensemble_svc.train.recipe import Recipe
from ensemble_svc.train.step import Step
from ensemble_svc.train.strand import Strand, beside, cut
from ensemble_svc.train.stream import BagWeights, StreamBatch


class PackModule(SlotModule):
    """Trains K networks of one structure.

    A Lightning batch is a *block* of steps: at a fraction of a millisecond per step the loop's own
    cost would otherwise show. On the cores of a CPU the members are divided among strands, a thread each.
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
        self.automatic_optimization = False
        self.bags, self.compiled = bags, compiled
        self._net = start.net.to(recipe.device)
        self._trained = [name for name, p in start.net.named_parameters() if p.requires_grad]
        self._stack = {name: weight.to(recipe.device) for name, weight in start.stack.items()}
        matrices = [name for name in self._trained if self._stack[name].dim() == 3]
        self._stack |= {name: as_gradients_come(self._stack[name]) for name in matrices}
        self._strands = self._divided()

    @property
    def net(self) -> MemberNet:
        return self._net

    @property
    def weights(self) -> Stack:
        return self._stack

    def configure_optimizers(self) -> None:
        """None: the strands step their optimisers."""

    def training_step(self, block: Tensor | StreamBatch, block_idx: int) -> None:
        division = self._division()
        if len(self._strands) != division.number:
            self._divide_anew()
        average = self.ledger.moving
        epoch, first = self.first_epoch + self.current_epoch, len(self.step_losses)
        tasks = []
        for strand, own in zip(self._strands, self._places(), strict=True):
            batches = block[:, own].unbind(0) if isinstance(block, Tensor) else (block,)
            tasks.append(partial(strand.run, batches, epoch, first, average and cut(average, own)))
        losses = beside(tasks, division.threads)
        self.step_losses += [torch.cat(parts) for parts in zip(*losses, strict=True)]
        self.ledger.num_steps += len(losses[0])

    def optimizer_state(self) -> Stack:
        """As of one optimiser of all members: where only some have a momentum, the others' slices are 0."""
        states = [strand.state() for strand in self._strands]
        names = dict.fromkeys(name for state in states for name in state)
        return {
            name: torch.cat(
                [
                    state[name] if name in state else strand.zeros(name)
                    for state, strand in zip(states, self._strands, strict=True)
                ]
            )
            for name in names
        }

    def load(self, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], num_steps: int) -> None:
        with torch.no_grad():
            for name, value in weights.items():
                self._stack[name].copy_(value)
        for strand, own in zip(self._strands, self._places(), strict=True):
            strand.load(cut(optimizer, own), num_steps)

    def drop(self, keep: list[int]) -> None:
        """Go on with the members at these positions of the stack; the others are left out of every step."""
        index = torch.tensor(keep, device=self.recipe.device)
        self.recipe = self.recipe.select(keep)
        self.bags = self.bags and self.bags.select(index)
        self.own_scale_K = {name: scale.index_select(0, index) for name, scale in self.own_scale_K.items()}
        self._divide_anew(index)

    def take_over(self, sources: list[int], recipe: Recipe, own: Mapping[int, Stack]) -> None:
        """Go on by another recipe from the states of the members at these positions.

        Args:
            own: what of the stack is a member's own nevertheless, by position.
        """
        index = torch.tensor(sources, device=self.recipe.device)
        self.recipe = recipe
        self.own_scale_K = {n: self._stack[n].index_select(0, index).clone() for n in self.own_scale_K}
        self._divide_anew(index, own)

    def _divide_anew(self, keep: Tensor | None = None, own: Mapping[int, Stack] | None = None) -> None:
        """New strands that go on where the old ones stand, of the members at positions ``keep`` alone.

        Args:
            own: values of the stack that replace those of some members, by their positions.
        """
        state, num_steps = self.optimizer_state(), self._strands[0].optimizer.num_steps
        if keep is not None:
            self._stack = {name: gathered(value, keep) for name, value in self._stack.items()}
            state = {name: value.index_select(0, keep) for name, value in state.items()}
        for position, values in (own or {}).items():
            for name, value in values.items():
                self._stack[name][position].copy_(value)
        self._strands = self._divided()
        self.load({}, state, num_steps)

    def _divided(self) -> list[Strand]:
        """Strands of about equally many neighbours in the stack, their optimisers new."""
        number = self._division().number
        if number == 1:
            return [self._strand(slice(0, len(self.recipe.members)), self.recipe, self._net, None)]
        found = []
        for own in even_slices(len(self.recipe.members), number):
            recipe = self.recipe.select(range(own.start, own.stop))
            recipe = replace(recipe, lead=recipe.members[0])
            found.append(self._strand(own, recipe, copy.deepcopy(self._net), torch.Generator()))
        return found

    def _places(self) -> list[slice]:
        """The strands' members in the stack."""
        return even_slices(len(self.recipe.members), len(self._strands))

    def _strand(
        self, members: slice, recipe: Recipe, net: MemberNet, generator: torch.Generator | None
    ) -> Strand:
        bags = self.bags and self.bags.select(members)
        inside = Step(recipe, net, self.data, bags, cut(self.own_scale_K, members), generator)
        return Strand(inside, cut(self._stack, members), self._trained, compiled=self.compiled)

    def _division(self) -> Strands:
        """How the process's cores are divided now; networks of the user's own draw where strands cannot."""
        cores = torch.get_num_threads()
        unable = self.compiled or self.recipe.device.type != "cpu" or not packed.is_known(self._net.body)
        if unable or num_allowed() < cores:
            return Strands(1, cores)
        in_turn = packed.goes_in_turn(self._net.body, self.recipe.device)
        return strands(self.recipe.core_s, len(self.recipe.members), cores, in_turn=in_turn)


def num_allowed() -> int:
    """Cores on which this thread, and so a thread that it starts, may run; OpenMP may have bound it to one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def even_slices(whole: int, parts: int) -> list[slice]:
    """``range(whole)`` cut into parts whose sizes differ by one at most."""
    ends = [whole * i // parts for i in range(parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]
