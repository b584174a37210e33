"""The books of K members in training: averages, best epochs, who stopped, who diverged.

One ledger serves a member alone (K = 1) and a pack. Nothing here depends on how the step is done.
Shapes: K members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ensemble_svc.optim.average import ema_update
from ensemble_svc.plan.progress import MemberStatus
from ensemble_svc.store.tensors import prefixed, under
from ensemble_svc.train.assemble import Stack
from ensemble_svc.train.recipe import Recipe

HIGHER_IS_BETTER = frozenset({"accuracy"})
"""Validation metrics that grow as a member improves."""


@dataclass
class Entry:
    """What one member has done so far."""

    status: MemberStatus = "training"
    reason: str = ""
    best: float | None = None
    """Best value of the watched metric."""
    best_epoch: int = 0
    """Epoch whose weights are kept; 0 is before training."""
    epochs: int = 0
    """Epochs trained before the member stopped."""
    history: list[dict[str, float | int]] = field(default_factory=list)

    @property
    def active(self) -> bool:
        """Whether the member still trains."""
        return self.status == "training"


class Ledger:
    """Averages the weights as they move and keeps, for each member, those it will be sealed with."""

    def __init__(self, recipe: Recipe, weights: Stack) -> None:
        self.recipe = recipe
        self.entries = [Entry() for _ in recipe.members]
        self.num_steps = 0
        self.average: Stack | None = None if recipe.decay is None else _copy(weights)
        self.kept = _copy(weights)
        self.kept_average = None if self.average is None else _copy(weights)

    def served(self, weights: Stack) -> Stack:
        """The weights that validate and predict: the average where there is one."""
        return weights if self.average is None else self.average

    def step(self, weights: Mapping[str, Tensor]) -> None:
        """Account for one optimiser step."""
        self.num_steps += 1
        if self.average is not None and self.recipe.decay is not None:
            ema_update(self.average, weights, self.recipe.decay, self.num_steps)

    def close_epoch(
        self,
        epoch: int,
        weights: Stack,
        *,
        losses_SK: Tensor,
        rates: Sequence[float],
        seconds: float,
        validation: Mapping[str, Tensor],
    ) -> None:
        """Take in an epoch: histories, divergence, improvement, early stops.

        Args:
            epoch: counted from 1.
            losses_SK: each step's loss; the mean over steps is the epoch's training loss.
            rates: each member's learning rate at the last step.
            seconds: wall time of the epoch.
            validation: metric → its value for each member [K].
        """
        finite_K = _finite(weights)
        losses = losses_SK.double().mean(0).tolist()
        metrics = {name: values.tolist() for name, values in validation.items()}
        improved = []
        for k, entry in enumerate(self.entries):
            if not entry.active:
                continue
            measured = {f"val_{name}": values[k] for name, values in metrics.items()}
            row = {"epoch": epoch, "train_loss": losses[k], "learning_rate": rates[k], "seconds": seconds}
            entry.history.append(row | measured)
            entry.epochs = epoch
            if not bool(finite_K[k]) or not torch.isfinite(losses_SK[:, k]).all():
                self._diverge(entry, epoch, losses_SK[:, k])
            elif self._improves(entry, {name: values[k] for name, values in metrics.items()}):
                entry.best_epoch = epoch
                improved.append(k)
            elif self._out_of_patience(entry, epoch):
                entry.status = "stopped"
        self._keep(improved, weights)

    @property
    def any_active(self) -> bool:
        """Whether some member still trains."""
        return any(entry.active for entry in self.entries)

    def state(self) -> tuple[Stack, dict[str, Any]]:
        """Everything a resumed ledger needs: tensors, and plain facts."""
        tensors = prefixed("kept", self.kept)
        if self.average is not None and self.kept_average is not None:
            tensors |= prefixed("average", self.average) | prefixed("kept_average", self.kept_average)
        return tensors, {"num_steps": self.num_steps, "entries": [asdict(e) for e in self.entries]}

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Inverse of ``state``."""
        self.num_steps = facts["num_steps"]
        self.entries = [Entry(**entry) for entry in facts["entries"]]
        device = self.recipe.device
        self.kept = _on(device, under("kept", tensors))
        if self.average is not None:
            self.average = _on(device, under("average", tensors))
            self.kept_average = _on(device, under("kept_average", tensors))

    def _diverge(self, entry: Entry, epoch: int, losses_S: Tensor) -> None:
        bad = (~torch.isfinite(losses_S)).nonzero()
        step = int(bad[0]) + 1 if len(bad) else len(losses_S)
        entry.status = "diverged"
        entry.reason = f"the loss or a weight was not finite at step {step} of epoch {epoch}"

    def _improves(self, entry: Entry, metrics: Mapping[str, float]) -> bool:
        rule = self.recipe.shared.early_stopping
        if rule is None:
            return True
        sign = 1.0 if rule.metric in HIGHER_IS_BETTER else -1.0
        value = metrics[rule.metric]
        better = entry.best is None or sign * (value - entry.best) > rule.min_delta
        if better and value == value:
            entry.best = value
            return True
        return False

    def _out_of_patience(self, entry: Entry, epoch: int) -> bool:
        rule = self.recipe.shared.early_stopping
        return rule is not None and epoch - entry.best_epoch >= rule.patience

    def _keep(self, members: list[int], weights: Stack) -> None:
        if not members:
            return
        pairs = [(self.kept, weights)]
        if self.average is not None and self.kept_average is not None:
            pairs.append((self.kept_average, self.average))
        everyone = len(members) == len(self.entries)
        index = torch.tensor(members, device=self.recipe.device)
        for kept, now in pairs:
            for name, value in now.items():
                if everyone:
                    kept[name].copy_(value.detach())
                else:
                    kept[name].index_copy_(0, index, value.detach().index_select(0, index))


def _finite(weights: Stack) -> Tensor:
    """Whether all of each member's weights are finite, [K]."""
    flags = [
        w.isfinite().view(len(w), -1).all(1)
        for w in weights.values()
        if w.is_floating_point() and w[0].numel()
    ]
    return torch.stack(flags).all(0)


def _copy(weights: Mapping[str, Tensor]) -> Stack:
    return {name: weight.detach().clone() for name, weight in weights.items()}


def _on(device: torch.device, tensors: Mapping[str, Tensor]) -> Stack:
    return {name: tensor.to(device) for name, tensor in tensors.items()}
