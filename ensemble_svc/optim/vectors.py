"""One step of K members whose options differ, as vectors that broadcast over one block.

The formulas are those of ``torch.optim``; a slice equals torch on that member alone to round-off.
Shapes: K members, Q numbers per member in the block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ensemble_svc.spec.training import AdamW, Optimizer, Sgd


def update_each(
    rules: Sequence[Optimizer],
    params_KQ: Tensor,
    grads_KQ: Tensor,
    buffers: Mapping[str, Tensor],
    factors: Sequence[float],
    num_steps: int,
) -> None:
    """Take one step of every member's own rule, in place.

    Args:
        rules: one per member, all of one class.
        factors: each member's multiplier of its learning rate.
        num_steps: number of this step, from 1.
    """
    adams = [rule for rule in rules if isinstance(rule, AdamW)]
    sgds = [rule for rule in rules if isinstance(rule, Sgd)]
    if adams:
        _adamw(adams, params_KQ, grads_KQ, buffers, factors, num_steps)
    if sgds:
        _sgd(sgds, params_KQ, grads_KQ, buffers, factors)


def _adamw(
    rules: Sequence[AdamW],
    params_KQ: Tensor,
    grads_KQ: Tensor,
    buffers: Mapping[str, Tensor],
    factors: Sequence[float],
    t: int,
) -> None:
    column = _columns(params_KQ)
    mean_KQ, square_KQ = buffers["exp_avg"], buffers["exp_avg_sq"]
    rates = [rule.lr * factor for rule, factor in zip(rules, factors, strict=True)]
    params_KQ.mul_(column([1 - lr * rule.weight_decay for lr, rule in zip(rates, rules, strict=True)]))
    mean_KQ.lerp_(grads_KQ, column([1 - rule.betas[0] for rule in rules]))
    square_KQ.lerp_(grads_KQ.square(), column([1 - rule.betas[1] for rule in rules]))
    root_KQ = square_KQ.sqrt().div_(column([(1 - rule.betas[1] ** t) ** 0.5 for rule in rules]))
    steps = column([-lr / (1 - rule.betas[0] ** t) for lr, rule in zip(rates, rules, strict=True)])
    params_KQ.add_(mean_KQ.div(root_KQ.add_(column([rule.eps for rule in rules]))).mul_(steps))


def _sgd(
    rules: Sequence[Sgd],
    params_KQ: Tensor,
    grads_KQ: Tensor,
    buffers: Mapping[str, Tensor],
    factors: Sequence[float],
) -> None:
    column = _columns(params_KQ)
    step_KQ = torch.addcmul(grads_KQ, params_KQ, column([rule.weight_decay for rule in rules]))
    if any(rule.momentum for rule in rules):
        kept_KQ, momentum_K1 = buffers["momentum_buffer"], column([rule.momentum for rule in rules])
        kept_KQ.mul_(momentum_K1).add_(step_KQ)
        ahead_K1 = column([float(rule.nesterov) for rule in rules])
        step_KQ = torch.lerp(kept_KQ, torch.addcmul(step_KQ, kept_KQ, momentum_K1), ahead_K1)
    params_KQ.addcmul_(step_KQ, column([-rule.lr * f for rule, f in zip(rules, factors, strict=True)]))


def _columns(like_KQ: Tensor) -> Callable[[Sequence[float]], Tensor]:
    """Makes a column [K, 1] of numbers, in the type and on the device of ``like_KQ``."""

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).to(like_KQ).unsqueeze(1)

    return column
