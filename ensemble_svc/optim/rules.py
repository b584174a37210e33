"""The update rules: what each keeps per parameter, and one step of it.

A step is the fused kernel that ``torch.optim`` calls with ``fused=True``, without the 45 µs of
Python around it (a pack of five 8-50-2 members: 4 µs against 44 µs per step on one core).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ensemble_svc.errors import Fault, SpecError, TrainError
from ensemble_svc.spec.optimizers import AdaGrad, Adam, AdamW, Numberwise, RmsProp, Sgd


def buffer_names(rule: Numberwise) -> tuple[str, ...]:
    """Running values that ``rule`` keeps per parameter, named as ``torch.optim`` names them."""
    match rule:
        case Adam() | AdamW():
            return ("exp_avg", "exp_avg_sq")
        case AdaGrad():
            return ("sum",)
        case RmsProp():
            return ("square_avg", "momentum_buffer") if rule.momentum else ("square_avg",)
        case Sgd():
            return ("momentum_buffer",) if rule.momentum else ()


def check(rule: Numberwise) -> None:
    """Refuse options that contradict each other.

    Raises:
        SpecError: Nesterov's step without a momentum.
    """
    if isinstance(rule, Sgd) and rule.nesterov and not rule.momentum:
        found = "true, but momentum is 0. Give a momentum, 0.9 say, or leave nesterov out."
        raise SpecError([Fault("training.optimizer.nesterov", found)])


def update(
    rule: Numberwise,
    params: list[Tensor],
    grads: list[Tensor],
    buffers: Mapping[str, list[Tensor]],
    *,
    factor: float,
    step: Tensor,
) -> None:
    """Take one step of ``rule``, in place.

    Args:
        params: contiguous, outside autograd; ``grads`` and every buffer run parallel to them.
        factor: multiplies the learning rate.
        step: number of this step, from 1, as a float32 scalar.
    """
    match rule:
        case Adam() | AdamW():
            kernel = torch._fused_adamw_ if isinstance(rule, AdamW) else torch._fused_adam_
            kernel(
                params,
                grads,
                buffers["exp_avg"],
                buffers["exp_avg_sq"],
                [],
                [step] * len(params),
                lr=rule.rate * factor,
                beta1=rule.betas[0],
                beta2=rule.betas[1],
                weight_decay=rule.weight_decay,
                eps=rule.eps,
                amsgrad=False,
                maximize=False,
            )
        case AdaGrad():
            torch._fused_adagrad_(
                params,
                grads,
                buffers["sum"],
                [step] * len(params),
                lr=rule.rate * factor,
                lr_decay=0.0,
                weight_decay=rule.weight_decay,
                eps=rule.eps,
                maximize=False,
            )
        case RmsProp():
            _rmsprop(rule, params, grads, buffers, factor)
        case Sgd():
            torch._fused_sgd_(
                params,
                grads,
                buffers.get("momentum_buffer", []),
                weight_decay=rule.weight_decay,
                momentum=rule.momentum,
                lr=rule.rate * factor,
                dampening=0.0,
                nesterov=rule.nesterov,
                maximize=False,
                is_first_step=False,
            )


def _rmsprop(
    rule: RmsProp,
    params: list[Tensor],
    grads: list[Tensor],
    buffers: Mapping[str, list[Tensor]],
    factor: float,
) -> None:
    """What ``torch.optim.RMSprop`` does, which has no fused kernel."""
    if rule.weight_decay:
        grads = list(torch._foreach_add(grads, params, alpha=rule.weight_decay))
    squares = buffers["square_avg"]
    torch._foreach_mul_(squares, rule.alpha)
    torch._foreach_addcmul_(squares, grads, grads, value=1 - rule.alpha)
    roots = torch._foreach_sqrt(squares)
    torch._foreach_add_(roots, rule.eps)
    if not rule.momentum:
        torch._foreach_addcdiv_(params, grads, roots, value=-rule.rate * factor)
        return
    kept = buffers["momentum_buffer"]
    torch._foreach_mul_(kept, rule.momentum)
    torch._foreach_addcdiv_(kept, grads, roots)
    torch._foreach_add_(params, kept, alpha=-rule.rate * factor)


def restore(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Copy saved running values into the live ones.

    Raises:
        TrainError: other names or shapes than the live ones have.
    """
    if differing := sorted(own.keys() ^ saved.keys()):
        where = "lacks" if differing[0] in own else "has, and this optimiser lacks,"
        raise TrainError(
            f"the optimiser's saved state {where} '{differing[0]}': it is another rule's or network's."
        )
    for name, live in own.items():
        if live.shape != saved[name].shape:
            shapes = f"{tuple(saved[name].shape)} where {tuple(live.shape)} is needed"
            raise TrainError(f"the optimiser's saved state '{name}' has the shape {shapes}.")
        live.copy_(saved[name])
