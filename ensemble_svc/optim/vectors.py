"""One step of K members whose options differ, as vectors that broadcast over one block.

The formulas are those of ``torch.optim``; a slice equals torch on that member alone to round-off.
Shapes: K members, Q numbers per member in the block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ensemble_svc.spec.optimizers import AdaGrad, Adam, AdamW, Numberwise, RmsProp, Sgd


def update_each(
    rules: Sequence[Numberwise],
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
    t = num_steps
    match rules[0]:
        case Adam() | AdamW():
            adams = [rule for rule in rules if isinstance(rule, Adam | AdamW)]
            _adam(adams, params_KQ, grads_KQ, buffers, factors, t)
        case AdaGrad():
            _adagrad([r for r in rules if isinstance(r, AdaGrad)], params_KQ, grads_KQ, buffers, factors)
        case RmsProp():
            _rmsprop([r for r in rules if isinstance(r, RmsProp)], params_KQ, grads_KQ, buffers, factors)
        case Sgd():
            _sgd([r for r in rules if isinstance(r, Sgd)], params_KQ, grads_KQ, buffers, factors)


def _adam(
    rules: Sequence[Adam | AdamW],
    params_KQ: Tensor,
    grads_KQ: Tensor,
    buffers: Mapping[str, Tensor],
    factors: Sequence[float],
    t: int,
) -> None:
    column = _columns(params_KQ)
    mean_KQ, square_KQ = buffers["exp_avg"], buffers["exp_avg_sq"]
    rates = [rule.rate * factor for rule, factor in zip(rules, factors, strict=True)]
    if isinstance(rules[0], AdamW):
        params_KQ.mul_(column([1 - lr * rule.weight_decay for lr, rule in zip(rates, rules, strict=True)]))
    else:
        grads_KQ = _decayed(rules, params_KQ, grads_KQ)
    mean_KQ.lerp_(grads_KQ, column([1 - rule.betas[0] for rule in rules]))
    square_KQ.lerp_(grads_KQ.square(), column([1 - rule.betas[1] for rule in rules]))
    root_KQ = square_KQ.sqrt().div_(column([(1 - rule.betas[1] ** t) ** 0.5 for rule in rules]))
    steps = column([-lr / (1 - rule.betas[0] ** t) for lr, rule in zip(rates, rules, strict=True)])
    params_KQ.add_(mean_KQ.div(root_KQ.add_(column([rule.eps for rule in rules]))).mul_(steps))


def _adagrad(
    rules: Sequence[AdaGrad],
    params_KQ: Tensor,
    grads_KQ: Tensor,
    buffers: Mapping[str, Tensor],
    factors: Sequence[float],
) -> None:
    column, sum_KQ = _columns(params_KQ), buffers["sum"]
    grads_KQ = _decayed(rules, params_KQ, grads_KQ)
    sum_KQ.addcmul_(grads_KQ, grads_KQ)
    step_KQ = grads_KQ / sum_KQ.sqrt().add_(column([rule.eps for rule in rules]))
    _descend(rules, params_KQ, step_KQ, factors)


def _rmsprop(
    rules: Sequence[RmsProp],
    params_KQ: Tensor,
    grads_KQ: Tensor,
    buffers: Mapping[str, Tensor],
    factors: Sequence[float],
) -> None:
    column, square_KQ = _columns(params_KQ), buffers["square_avg"]
    grads_KQ = _decayed(rules, params_KQ, grads_KQ)
    square_KQ.lerp_(grads_KQ.square(), column([1 - rule.alpha for rule in rules]))
    step_KQ = grads_KQ / square_KQ.sqrt().add_(column([rule.eps for rule in rules]))
    if any(rule.momentum for rule in rules):
        step_KQ = buffers["momentum_buffer"].mul_(column([rule.momentum for rule in rules])).add_(step_KQ)
    _descend(rules, params_KQ, step_KQ, factors)


def _sgd(
    rules: Sequence[Sgd],
    params_KQ: Tensor,
    grads_KQ: Tensor,
    buffers: Mapping[str, Tensor],
    factors: Sequence[float],
) -> None:
    column = _columns(params_KQ)
    step_KQ = _decayed(rules, params_KQ, grads_KQ)
    if any(rule.momentum for rule in rules):
        kept_KQ, momentum_K1 = buffers["momentum_buffer"], column([rule.momentum for rule in rules])
        kept_KQ.mul_(momentum_K1).add_(step_KQ)
        ahead_K1 = column([float(rule.nesterov) for rule in rules])
        step_KQ = torch.lerp(kept_KQ, torch.addcmul(step_KQ, kept_KQ, momentum_K1), ahead_K1)
    _descend(rules, params_KQ, step_KQ, factors)


def _decayed(rules: Sequence[Numberwise], params_KQ: Tensor, grads_KQ: Tensor) -> Tensor:
    """The gradients with those of the L2 penalties."""
    return torch.addcmul(grads_KQ, params_KQ, _columns(params_KQ)([rule.weight_decay for rule in rules]))


def _descend(
    rules: Sequence[Numberwise], params_KQ: Tensor, step_KQ: Tensor, factors: Sequence[float]
) -> None:
    """Go against ``step_KQ``, each member at its own rate."""
    rates = [-rule.rate * factor for rule, factor in zip(rules, factors, strict=True)]
    params_KQ.addcmul_(step_KQ, _columns(params_KQ)(rates))


def _columns(like_KQ: Tensor) -> Callable[[Sequence[float]], Tensor]:
    """Makes a column [K, 1] of numbers, in the type and on the device of ``like_KQ``."""

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).to(like_KQ).unsqueeze(1)

    return column
