"""One optimiser for K stacked members, each with its own options.

Members with equal rules share one call of the fused kernel. It takes plain numbers, so on a CPU there
is one call per *distinct* rule, on the slices of the members that have it. Vectors of options that
broadcast need nine passes over memory where the kernel needs one: 16 members 64-128-128-10 with 16
learning rates took 0.97 ms against 0.42 ms, 64 LeNet-5 9.8 ms against 4.2 ms (one core). On a GPU a
launch costs more than a pass over so little memory: there members that differ are updated by vectors
(``optim/vectors.py``), a dozen launches however many rules there are.

Laws: each slice equals ``torch.optim`` on that member alone; its bits depend neither on the other
members nor on their rules, so a member goes on unchanged when others are dropped.

Shapes: K members.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble_svc.optim.blocks import SideBySide, fills_vectors, memory_order
from ensemble_svc.optim.rules import buffer_names, check, update
from ensemble_svc.optim.vectors import update_each
from ensemble_svc.spec.optimizers import Numberwise


@dataclass(frozen=True)
class _Share:
    """The pieces of the stack that one rule updates."""

    rule: Numberwise
    first: int
    """A member of the share; all of them are at its pace."""
    members: tuple[int, ...] | None
    """None: all of them, in whole stacks."""
    params: list[Tensor]
    buffers: dict[str, list[Tensor]]


class StackedOptimizer:
    """Updates a stack of K members in place.

    A parameter without a gradient is left as it is, as torch does; it should have one at every
    step or at none, for steps are counted for all parameters together.

    Args:
        params: dense leaves [K, …] by name, K outermost in memory, of one type and on one device.
        rules: one per member, all of one class; every option may differ.
        paces: one per member; members of equal pace get the same factor at every step. Absent: all do.
        vectors: update members that differ by vectors instead of one call per rule; on a GPU when absent.

    Raises:
        SpecError: a rule whose options contradict each other.
        ValueError: rules of several classes, or parameters that are no stack of K.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        rules: Sequence[Numberwise],
        *,
        paces: Sequence[Hashable] | None = None,
        vectors: bool | None = None,
    ) -> None:
        self.params = dict(params)
        self.rules = tuple(rules)
        self.paces = tuple(paces) if paces is not None else (None,) * len(self.rules)
        self.num_steps = 0
        _check_stack(self.params, self.rules)
        device = next(iter(self.params.values())).device
        self._by_vectors = device.type != "cpu" if vectors is None else vectors
        self.vectors = self._by_vectors and self._differ
        self._buffers = tuple(dict.fromkeys(name for rule in self.rules for name in buffer_names(rule)))
        self._state = {
            f"{buffer}/{name}": torch.zeros_like(param, requires_grad=False)
            for buffer in self._buffers
            for name, param in self.params.items()
        }
        self._in_block: set[str] = set()
        self._step = torch.zeros((), device=device)
        self._arrange(list(self.params))

    @property
    def _differ(self) -> bool:
        return len(set(zip(self.rules, self.paces, strict=True))) > 1

    def regroup(self, paces: Sequence[Hashable]) -> None:
        """Go on with other paces."""
        if tuple(paces) != self.paces:
            self.paces = tuple(paces)
            self.vectors = self.vectors or (self._by_vectors and self._differ)
            self._arrange(self._names)

    def step(self, factor: float | Sequence[float]) -> None:
        """Take one step along ``.grad``.

        Args:
            factor: what multiplies the learning rates, one for all or one per member; a member whose
                factor is 0 stays as it is.
        """
        names = [name for name, param in self.params.items() if param.grad is not None]
        if names != self._names:
            self._arrange(names)
        if not names:
            self.num_steps += 1
            return
        self.num_steps += 1
        self._step.fill_(self.num_steps)
        grads = self._grads()
        factors = [factor] * len(self.rules) if isinstance(factor, int | float) else list(factor)
        if self.vectors:
            update_each(self.rules, self._params[0], grads[0], self._blocks, factors, self.num_steps)
        else:
            self._update_shares(grads, factors)
        if self._side:
            self._side.push()

    def _update_shares(self, grads: list[Tensor], factors: Sequence[float]) -> None:
        rows = [grad.unbind(0) for grad in grads] if len(self._shares) > 1 else []
        for share in self._shares:
            mine = grads if share.members is None else [row[k] for row in rows for k in share.members]
            rate = factors[share.first]
            update(share.rule, share.params, mine, share.buffers, factor=rate, step=self._step)

    def state(self) -> dict[str, Tensor]:
        """The running values [K, …] by ``buffer/parameter``, as they stand until the next step.

        Where only some members have a momentum, the others' slices mean nothing.
        """
        return {key: value.clone() if key in self._in_block else value for key, value in self._state.items()}

    def tensors(self) -> dict[str, Tensor]:
        """The live running values, which the next step may lay out anew."""
        return dict(self._state)

    def _arrange(self, names: list[str]) -> None:
        """Lay out weights and running values of the named parameters for the kernel."""
        self._names = names
        self._even = [n for n in names if not self.vectors and fills_vectors(self.params[n])]
        odd = [name for name in names if name not in self._even]
        self._side = SideBySide([self.params[name].detach() for name in odd]) if odd else None
        self._orders = {name: memory_order(self.params[name]) for name in self._even}
        params = [self.params[name].detach().permute(self._orders[name]) for name in self._even]
        buffers = {
            b: [self._state[f"{b}/{n}"].permute(self._orders[n]) for n in self._even] for b in self._buffers
        }
        if self._side:
            params.append(self._side.block)
            self._side_grads = torch.zeros_like(self._side.block)
            self._in_block |= {f"{buffer}/{name}" for buffer in self._buffers for name in odd}
            for buffer, blocks in buffers.items():
                keys = [f"{buffer}/{name}" for name in odd]
                blocks.append(self._side.gathered([self._state[key] for key in keys]))
                self._state.update(zip(keys, self._side.views(blocks[-1]), strict=True))
        self._params, self._blocks = params, {name: blocks[-1] for name, blocks in buffers.items() if blocks}
        self._shares = [] if self.vectors or not names else _shares(self.rules, self.paces, params, buffers)

    def _grads(self) -> list[Tensor]:
        """The gradients in the layout of the weights, whose block is brought up to date too."""
        grads = {name: grad for name, p in self.params.items() if (grad := p.grad) is not None}
        even = [grads.pop(name).permute(self._orders[name]).contiguous() for name in self._even]
        if self._side:
            self._side.pull()
            self._side.gather(list(grads.values()), self._side_grads)
            even.append(self._side_grads)
        return even


def _shares(
    rules: Sequence[Numberwise],
    paces: Sequence[Hashable],
    params: list[Tensor],
    buffers: Mapping[str, list[Tensor]],
) -> list[_Share]:
    members: dict[tuple[Numberwise, Hashable], list[int]] = {}
    for k, key in enumerate(zip(rules, paces, strict=True)):
        members.setdefault(key, []).append(k)
    if len(members) == 1:
        return [_Share(rules[0], 0, None, params, dict(buffers))]
    return [
        _Share(
            rule,
            own[0],
            tuple(own),
            _rows(params, own),
            {b: _rows(buffers[b], own) for b in buffer_names(rule)},
        )
        for (rule, _), own in members.items()
    ]


def _rows(stacks: Sequence[Tensor], members: Sequence[int]) -> list[Tensor]:
    return [stack[k] for stack in stacks for k in members]


def _check_stack(params: Mapping[str, Tensor], rules: Sequence[Numberwise]) -> None:
    for rule in rules:
        check(rule)
    if len({type(rule) for rule in rules}) != 1:
        raise ValueError("the members of a stack need rules of one class")
    if len({(param.dtype, param.device) for param in params.values()}) != 1:
        raise ValueError("the parameters of a stack need one type and one device")
    for name, param in params.items():
        order = memory_order(param)
        is_dense = param.permute(order).is_contiguous() and order[:1] == [0]
        if param.shape[:1] != (len(rules),) or not is_dense:
            raise ValueError(f"parameter '{name}' is no dense stack of {len(rules)} members")
