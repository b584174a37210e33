"""One member's optimiser: torch's own, with its state as plain tensors by name.

The keys are those of ``layered.py`` without the member axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ensemble_svc.optim.alone import MuonAlone
from ensemble_svc.optim.layers import ALIKE, Layers
from ensemble_svc.optim.rules import buffer_names, check, restore
from ensemble_svc.spec.optimizers import AdaGrad, Adam, AdamW, Muon, Optimizer, RmsProp, Sgd

Group = dict[str, Any]


def build(rule: Optimizer, params: Mapping[str, Tensor], layers: Layers = ALIKE) -> torch.optim.Optimizer:
    """Torch's optimiser for ``rule``, its state all zeros from the start.

    Args:
        params: the parameters by name.
        layers: their roles.

    Raises:
        SpecError: options that contradict each other.
    """
    groups = [
        {
            "params": [(name, params[name]) for name in names],
            "lr": layers.rate(rule, names[0]),
            "peak_lr": layers.rate(rule, names[0]),
            "as_matrices": as_matrices,
        }
        for (as_matrices, _), names in layers.parts(rule, list(params)).items()
    ]
    if not isinstance(rule, Muon):
        check(rule)
    optimizer = _optimizer(rule, groups)
    for group in optimizer.param_groups:
        for param in group["params"]:
            optimizer.state[param] |= _zeros(rule, param, as_matrix=group["as_matrices"])
    return optimizer


def set_factor(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Let the next step be taken at ``factor`` times the learning rates."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def _zeros(rule: Optimizer, param: Tensor, *, as_matrix: bool) -> dict[str, Tensor]:
    kept = rule.others if isinstance(rule, Muon) else rule
    names = ("momentum_buffer",) if as_matrix else buffer_names(kept)
    steps = {} if as_matrix or isinstance(rule, Sgd) else {"step": torch.zeros((), device=param.device)}
    return steps | {name: torch.zeros_like(param, requires_grad=False) for name in names}


def _optimizer(rule: Optimizer, groups: list[Group]) -> torch.optim.Optimizer:
    match rule:
        case Adam() | AdamW():
            kind = torch.optim.AdamW if isinstance(rule, AdamW) else torch.optim.Adam
            return kind(
                groups,
                lr=rule.rate,
                betas=rule.betas,
                eps=rule.eps,
                weight_decay=rule.weight_decay,
                fused=True,
            )
        case AdaGrad():
            fused = all(param.device.type == "cpu" for group in groups for _, param in group["params"])
            return torch.optim.Adagrad(
                groups, lr=rule.rate, eps=rule.eps, weight_decay=rule.weight_decay, fused=fused or None
            )
        case RmsProp():
            return torch.optim.RMSprop(
                groups,
                lr=rule.rate,
                alpha=rule.alpha,
                eps=rule.eps,
                momentum=rule.momentum,
                weight_decay=rule.weight_decay,
            )
        case Sgd():
            return torch.optim.SGD(
                groups,
                lr=rule.rate,
                momentum=rule.momentum,
                nesterov=rule.nesterov,
                weight_decay=rule.weight_decay,
                fused=True,
            )
        case Muon():
            return MuonAlone(groups, rule)


def state_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The live running values of an optimiser of ``build``, by ``buffer/parameter``."""
    named = [
        (name, optimizer.state[param])
        for group in optimizer.param_groups
        for name, param in zip(group["param_names"], group["params"], strict=True)
    ]
    buffers = dict.fromkeys(buffer for _, state in named for buffer in state if buffer != "step")
    return {f"{b}/{name}": state[b] for b in buffers for name, state in named if b in state}


def load_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor], num_steps: int) -> None:
    """Go on from a saved state as if never interrupted.

    Raises:
        TrainError: a state of another rule or network.
    """
    restore(state_of(optimizer), state)
    for values in optimizer.state.values():
        if "step" in values:
            values["step"].fill_(num_steps)
