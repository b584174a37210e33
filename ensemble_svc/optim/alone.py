"""Muon of one member, in the form of torch's optimisers, which lack it in float32 and with AdamW beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ensemble_svc.optim.muon import update_matrices
from ensemble_svc.optim.rules import buffer_names, update
from ensemble_svc.spec.optimizers import Muon


class MuonAlone(torch.optim.Optimizer):
    """Steps groups marked ``as_matrices`` by Muon, the others by AdamW, each at its group's ``lr``.

    Args:
        groups: as torch takes them, with ``lr``, ``peak_lr`` and ``as_matrices``.
    """

    def __init__(self, groups: list[dict[str, Any]], rule: Muon) -> None:
        self.rule = rule
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step along the gradients; a parameter without one is left as it is."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                (self._step_matrices if group["as_matrices"] else self._step_others)(params, group["lr"])
        return loss

    def _step_matrices(self, params: list[Tensor], lr: float) -> None:
        stacked = [param.detach().unsqueeze(0) for param in params]
        grads = [param.grad.unsqueeze(0) for param in params if param.grad is not None]
        momenta = [self.state[param]["momentum_buffer"].unsqueeze(0) for param in params]
        update_matrices([self.rule], stacked, grads, momenta, [lr])

    def _step_others(self, params: list[Tensor], lr: float) -> None:
        rule, states = self.rule.others, [self.state[param] for param in params]
        for state in states:
            state["step"] += 1
        update(
            rule,
            [param.detach() for param in params],
            [param.grad for param in params if param.grad is not None],
            {name: [state[name] for state in states] for name in buffer_names(rule)},
            factor=lr / rule.rate,
            step=states[0]["step"],
        )
