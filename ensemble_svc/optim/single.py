"""One member's optimiser: torch's own, with its state as plain tensors by name.

The keys are those of ``stacked.py`` without the member axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ensemble_svc.optim.rules import buffer_names, check, restore
from ensemble_svc.spec.optimizers import AdaGrad, Adam, AdamW, Optimizer, RmsProp, Sgd


def build(rule: Optimizer, params: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Torch's optimiser for ``rule``, its state all zeros from the start.

    Raises:
        SpecError: options that contradict each other.
    """
    check(rule)
    optimizer = _optimizer(rule, list(params))
    for param in optimizer.param_groups[0]["params"]:
        state = optimizer.state[param]
        if not isinstance(rule, Sgd):
            state["step"] = torch.zeros((), device=param.device)
        for name in buffer_names(rule):
            state[name] = torch.zeros_like(param, requires_grad=False)
    return optimizer


def _optimizer(rule: Optimizer, params: list[Tensor]) -> torch.optim.Optimizer:
    match rule:
        case Adam() | AdamW():
            kind = torch.optim.AdamW if isinstance(rule, AdamW) else torch.optim.Adam
            return kind(
                params, lr=rule.lr, betas=rule.betas, eps=rule.eps, weight_decay=rule.weight_decay, fused=True
            )
        case AdaGrad():
            fused = all(param.device.type == "cpu" for param in params)
            return torch.optim.Adagrad(
                params, lr=rule.lr, eps=rule.eps, weight_decay=rule.weight_decay, fused=fused or None
            )
        case RmsProp():
            return torch.optim.RMSprop(
                params,
                lr=rule.lr,
                alpha=rule.alpha,
                eps=rule.eps,
                momentum=rule.momentum,
                weight_decay=rule.weight_decay,
            )
        case Sgd():
            return torch.optim.SGD(
                params,
                lr=rule.lr,
                momentum=rule.momentum,
                nesterov=rule.nesterov,
                weight_decay=rule.weight_decay,
                fused=True,
            )


def state_of(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, Tensor]:
    """The live running values of an optimiser of ``build``, by ``buffer/parameter``.

    Args:
        names: the parameters' names, in the order they were given to ``build``.
    """
    params = optimizer.param_groups[0]["params"]
    buffers = [name for name in optimizer.state[params[0]] if name != "step"] if params else []
    return {f"{b}/{n}": optimizer.state[p][b] for b in buffers for n, p in zip(names, params, strict=True)}


def load_state(
    optimizer: torch.optim.Optimizer, names: Sequence[str], state: Mapping[str, Tensor], num_steps: int
) -> None:
    """Go on from a saved state as if never interrupted.

    Raises:
        TrainError: a state of another rule or network.
    """
    restore(state_of(optimizer, names), state)
    for values in optimizer.state.values():
        if "step" in values:
            values["step"].fill_(num_steps)
