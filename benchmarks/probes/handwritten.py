"""The bare prototype: a vmapped step by hand with torch's own fused AdamW over the stack.

Shapes: K members, N rows, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from benchmarks.data import Rows
from benchmarks.members import adamw, epoch_order, new_member
from benchmarks.work import Work


def train_by_hand(work: Work, data: Rows) -> dict[str, Tensor]:
    """Train all members at once; returns their stacked weights by name."""
    nets = [new_member(work, data, k) for k in range(work.members)]
    params, buffers = stack_module_state(nets)
    rule = adamw(params.values(), work)
    losses = vmap(_loss_of(nets[0]), randomness="error")
    for epoch in range(work.epochs):
        orders = [epoch_order(work, len(data.x), k, epoch) for k in range(work.members)]
        for rows_KB in torch.stack(orders).split(work.batch, dim=1):
            rule.zero_grad()
            losses(params, buffers, data.x[rows_KB], data.y[rows_KB]).sum().backward()
            rule.step()
    return {name: value.detach() for name, value in params.items()}


def _loss_of(net: nn.Module) -> Callable[..., Tensor]:
    def loss_of(
        params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x_B: Tensor, y_B: Tensor
    ) -> Tensor:
        return cross_entropy(functional_call(net, {**params, **buffers}, (x_B,)), y_B)

    return loss_of
