"""Some members of a pack that one thread trains: their steps need no word with the other strands.

Where a pack's steps share the cores within each operation, the cores meet some fifty times a step, and wait
for whichever is late. Strands meet once per block of steps. Two cores took, per step of 64 networks 64-128-128-10,
7.8 ms in strands against 10.5 ms together; of ten LeNet-5 122 ms against 176 ms; of eight small convnets 35 ms
against 57 ms.

Networks of the zoo are written out (``nn/packed.py``); the user's own run under ``torch.func.vmap``. On a
CPU networks of convolutions go through the step member by member, which is faster there.
Shapes: K members of the strand, S steps, B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from threading import Event
from typing import TypeVar

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from ensemble_svc.nn import packed
from ensemble_svc.nn.member import TASK_SCALE
from ensemble_svc.nn.noise import normal_like, set_draws
from ensemble_svc.optim.layered import LayeredOptimizer
from ensemble_svc.train.assemble import Stack, part
from ensemble_svc.train.mixing import mix_all
from ensemble_svc.train.recipe import Own, along
from ensemble_svc.train.step import Batch, Step, arithmetic, compile_step
from ensemble_svc.train.stream import StreamBatch

T = TypeVar("T")


class Strand:
    """Trains K stacked networks in place.

    Args:
        inside: of these members alone.
        stack: their slices of the pack's parameters and buffers; what is trained is trained where it lies.
        trained: names of the weights that are trained.
    """

    def __init__(self, inside: Step, stack: Stack, trained: Iterable[str], *, compiled: bool = False) -> None:
        self.inside, self.recipe, self.net = inside, inside.recipe, inside.net
        set_draws(self.net, stack)
        self._goes_in_turn = packed.goes_in_turn(self.net.body, self.recipe.device)
        # Not detach(): its tensors would count their changes together with the other strands', and autograd
        # would take another strand's update for one of a weight that it still needs.
        self._stack = {name: value.data for name, value in stack.items()}
        self._trained = {name: self._stack[name].requires_grad_() for name in trained}
        self.optimizer = LayeredOptimizer(
            self._trained, self.recipe.rules, layers=inside.layers, paces=self.recipe.paces
        )
        self._outputs = compile_step(self._way(), self.recipe.device) if compiled else self._way()
        self._transform = vmap(self._transformed)
        outside = "body." if inside.data.transformed else ""
        self._read = [n for n in stack if n.startswith(outside) or n == TASK_SCALE]

    def run(
        self,
        block: Iterable[Tensor | StreamBatch],
        epoch: int,
        step_of_epoch: int,
        average: Stack | None,
        halt: Event,
    ) -> list[Tensor]:
        """Take a step on each batch of a block; the losses [K] of each.

        Args:
            epoch: counted from 0, as ``step_of_epoch``, the number of the block's first step.
            average: the members' moving averages, which are brought up to date.
            halt: set when what is left of the block is not wanted.
        """
        self.net.train()
        self.optimizer.regroup(self.recipe.paces)
        losses = []
        for number, rows in enumerate(block, start=step_of_epoch):
            if halt.is_set():
                break
            self.inside.seed(epoch, number)
            losses.append(self.step(self.inside.batch(rows)))
            if average is not None and self.recipe.moving is not None:
                self.recipe.moving.update(average, self._stack, self.optimizer.num_steps)
        return losses

    def step(self, batch: Batch) -> Tensor:
        """One optimiser step of every member on its own batch; the losses [K]."""
        self.optimizer.zero_grad()
        losses_K = self._in_turn(batch) if self._goes_in_turn else self._at_once(batch)
        if self.recipe.clip_K is not None:
            clip_each(list(self._trained.values()), self.recipe.clip_K)
        factors = self.recipe.factors(self.optimizer.num_steps)
        self.optimizer.step(factors)
        if self.recipe.constrains:
            self.recipe.constrain(self._trained, self.inside.penalised, factors, self.inside.layers)
        return losses_K

    def state(self) -> Stack:
        """The optimiser's running values."""
        return self.optimizer.state()

    def zeros(self, name: str) -> Tensor:
        """A running value that none of these members has."""
        return torch.zeros_like(self._trained[name.split("/", 1)[1]], requires_grad=False)

    def load(self, state: Mapping[str, Tensor], num_steps: int) -> None:
        """Go on from the running values of an optimiser that may have had more of them, for other members."""
        self.optimizer.load({n: state[n] for n in self.optimizer.state() if n in state}, num_steps)

    def _at_once(self, batch: Batch) -> Tensor:
        """Losses [K] of all members in one pass, and the gradients of the stack.

        The sum of the losses gives each member exactly its own gradient; members never mix.
        """
        reads = {name: self._stack[name] for name in self._read}
        outputs_KBO = self._outputs(reads, batch.x_KB, batch.own_K(self.recipe.own_K))
        losses_K = self.inside.losses(outputs_KBO, batch, weights_K=reads)
        total_K = losses_K + self.recipe.penalty_K(self._stack, self.inside.penalised)
        if self.inside.sparse.terms:
            total_K = total_K + self.inside.sparse.penalty_K(batch.weight_KB)
        total_K.sum().backward()
        return losses_K.detach()

    def _in_turn(self, batch: Batch) -> Tensor:
        """The same, one member after another, each on its own slices."""
        return torch.stack([self._one(k, batch) for k in range(len(batch.x_KB))])

    def _one(self, k: int, batch: Batch) -> Tensor:
        slices = {name: self._stack[name].detach()[k] for name in self._read}
        leaves = [slices[name].requires_grad_() for name in self._trained]
        own = {name: values_K[k] for name, values_K in batch.own_K(self.recipe.own_K).items()}
        mine = batch.member(k)
        outputs_1BO = self._outputs(slices, mine.x_KB[0], own).unsqueeze(0)
        scales = {n: slices[n].unsqueeze(0) for n in (TASK_SCALE,) if n in slices}
        loss_1 = self.inside.losses(outputs_1BO, mine, member=k, weights_K=scales)
        stacked = {name: slices[name].unsqueeze(0) for name in self.inside.penalised}
        total_1 = loss_1 + self.recipe.penalty_K(stacked, self.inside.penalised, member=k)
        if self.inside.sparse.terms:
            total_1 = total_1 + self.inside.sparse.penalty_K(mine.weight_KB, member=k)
        grads = torch.autograd.grad(total_1.sum(), leaves, allow_unused=True)
        for weight_K, grad in zip(self._trained.values(), grads, strict=True):
            if grad is None:  # not reached by the loss: the optimiser leaves it as it is
                continue
            if weight_K.grad is None:
                weight_K.grad = torch.zeros_like(weight_K)
            weight_K.grad[k].copy_(grad)
        return loss_1.detach().squeeze(0)

    def _way(self) -> Callable[..., Tensor]:
        """How outputs are computed: of a member at a time, of a known network's stack, or of any stack."""
        if self._goes_in_turn:
            return self.inside.outputs_of
        if packed.is_known(self.net.body):
            return self._outputs_written_out
        return vmap(self.inside.outputs_of, randomness="different")

    def _outputs_written_out(self, weights_K: Stack, x_KB: Tensor, own_K: Own) -> Tensor:
        """As ``Step.outputs_of`` for all members at once."""
        if not self.inside.data.transformed:
            x_KB = self._transform(part("transform", weights_K), x_KB)
        x_KB = mix_all(x_KB, own_K)
        generator = self.inside.generator
        if "input_noise" in own_K:
            x_KB = x_KB + along(own_K["input_noise"], x_KB) * normal_like(x_KB, generator)
        body = part("body", weights_K)
        if "weight_noise" in own_K:
            noisy = {name.removeprefix("body."): weights_K[name] for name in self.inside.penalised}
            std_K = own_K["weight_noise"]
            body |= {n: w + along(std_K, w) * normal_like(w, generator) for n, w in noisy.items()}
        with arithmetic(self.recipe):
            return packed.forward(self.net.body, body, x_KB).float()

    def _transformed(self, transform: Stack, x_B: Tensor) -> Tensor:
        found: Tensor = functional_call(self.net.transform, transform, (x_B,))
        return found


def clip_each(stacked: list[Tensor], largest_K: Tensor) -> None:
    """Scale down each member's gradient whose norm over all its parameters exceeds its ``largest_K``.

    The same as ``torch.nn.utils.clip_grad_norm_`` on each member alone.
    """
    grads = [p.grad for p in stacked if p.grad is not None]
    norm_K = torch.stack([g.flatten(1).norm(dim=1) for g in grads]).norm(dim=0)
    scale_K = (largest_K / (norm_K + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(along(scale_K, grad))


def cut(tensors: Mapping[str, Tensor], members: slice) -> Stack:
    """Some members' slices of stacks, as views."""
    return {name: value[members] for name, value in tensors.items()}


def beside(tasks: Sequence[Callable[[Event], T]], threads: int) -> list[T]:
    """What the tasks return, run beside each other with so many cores for the operations of each.

    All have ended when this returns or raises. Where one fails, or the user stops the training, the
    others are told by the event that they are given. The first runs in this thread, whose memory is
    the process's own.
    """
    before, halt = torch.get_num_threads(), Event()

    def run(task: Callable[[Event], T]) -> T:
        try:
            torch.set_num_threads(threads)
            return task(halt)
        except BaseException:
            halt.set()
            raise

    others = [_pool(len(tasks) - 1).submit(run, task) for task in tasks[1:]]
    try:
        return [run(tasks[0]), *(other.result() for other in others)]
    finally:
        halt.set()
        wait(others)
        torch.set_num_threads(before)


@cache
def _pool(size: int) -> ThreadPoolExecutor:
    """Threads that stay: each has buffers of the matrix library, and an arena of the allocator."""
    return ThreadPoolExecutor(size, thread_name_prefix="strand")
