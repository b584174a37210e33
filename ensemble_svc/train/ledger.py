"""The books of K members in training: averages, best epochs, who stopped, who diverged.

One ledger serves a member alone (K = 1) and a pack. Nothing here depends on how the step is done.
Shapes: K members of the pack, A ≤ K members that still stand in its stack.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ensemble_svc.optim.plateau import Descent
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.plan.progress import MemberStatus
from ensemble_svc.spec.direction import toward_less
from ensemble_svc.spec.schedules import Plateau
from ensemble_svc.spec.training import EarlyStopping
from ensemble_svc.store.tensors import prefixed
from ensemble_svc.train.assemble import Stack
from ensemble_svc.train.averages import Best, averages_of
from ensemble_svc.train.iterates import iterates_of
from ensemble_svc.train.recipe import Recipe


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
    vitals: list[dict[str, Any]] = field(default_factory=list)
    """What its layers did at some ends of epochs, each a ``vitals.sample.Sample`` as plain values."""
    turns: list[dict[str, Any]] = field(default_factory=list)
    """Where it took over another member's state: the epoch, whose it was, and the values it went on with."""

    @property
    def active(self) -> bool:
        """Whether the member still trains."""
        return self.status == "training"


class Ledger:
    """Averages the weights as they move and keeps, for each member, those it will be sealed with."""

    def __init__(self, recipe: Recipe, weights: Stack) -> None:
        self.recipe = recipe
        """The recipe of the members that stand in the stack."""
        self.members = recipe.members
        self.entries = [Entry() for _ in recipe.members]
        self.descents = _descents(recipe.members)
        self.standing = list(range(len(recipe.members)))
        """Positions in the pack of the members that stand in the stack, [A]."""
        self.num_steps = 0
        self.averages = averages_of(recipe, weights)
        self.iterates = iterates_of(recipe.members, weights)
        self.kept = _copy(weights)
        self.kept_average = None if self.averages is None else _copy(weights)

    def served(self, weights: Stack) -> Stack:
        """The weights that predict: the average where there is one."""
        return weights if self.averages is None else self.averages.served(weights, self.num_steps)

    def validated(self) -> list[bool]:
        """Whether each member's average validates, rather than its weights as they are, [A]."""
        if self.averages is None or isinstance(self.averages, Best):
            return [False] * len(self.standing)
        return self.averages.begun(self.num_steps)

    @property
    def moving(self) -> Stack | None:
        """The averages that the steps themselves bring up to date."""
        return None if self.averages is None else self.averages.moving

    def step(self, weights: Mapping[str, Tensor]) -> None:
        """Account for one optimiser step of all members."""
        self.num_steps += 1
        if self.moving is not None and self.recipe.moving is not None:
            self.recipe.moving.update(self.moving, weights, self.num_steps)

    def end_epoch(self, epoch: int, weights: Stack) -> None:
        """Take an epoch's last weights into the averages, before they validate."""
        if self.averages is not None:
            self.averages.take_epoch(epoch, weights)
        if self.iterates is not None:
            self.iterates.take_epoch(epoch, weights, self.standing, self.averages)

    def close_epoch(
        self,
        epoch: int,
        weights: Stack,
        *,
        losses_SA: Tensor,
        rates: Sequence[float],
        seconds: float,
        validation: Mapping[str, Tensor],
    ) -> None:
        """Take in an epoch: histories, divergence, improvement, early stops.

        Args:
            epoch: counted from 1.
            weights: of the members that stand in the stack, [A, …].
            losses_SA: each step's loss; the mean over steps is the epoch's training loss.
            rates: each member's learning rate at the last step, A of them.
            seconds: wall time of the epoch.
            validation: metric → its value for each member [A].
        """
        finite_A = _finite(weights) & losses_SA.isfinite().all(0)
        losses, finite = losses_SA.double().mean(0).tolist(), finite_A.tolist()
        metrics = {name: values.tolist() for name, values in validation.items()}
        if isinstance(self.averages, Best) and validation:
            self.averages.take_ranks(epoch, weights, validation)
        improved, sound = list[int](), list[int]()
        for a, k in enumerate(self.standing):
            entry, training = self.entries[k], self.members[k].training
            if not entry.active:
                continue
            own = {name: values[a] for name, values in metrics.items()}
            row = {"epoch": epoch, "train_loss": losses[a], "learning_rate": rates[a], "seconds": seconds}
            entry.history.append(row | {f"val_{name}": value for name, value in own.items()})
            entry.epochs = epoch
            self._lower(k)
            if not finite[a]:
                _diverge(entry, epoch, losses_SA[:, a])
                continue
            sound.append(a)
            if _improves(entry, training.early_stopping, own):
                entry.best_epoch = epoch
                improved.append(a)
            elif _out_of_patience(entry, training.early_stopping, epoch):
                entry.status = "stopped"
                continue
            if epoch == training.epochs:
                entry.status = "done"
        self._keep(improved, self.kept, weights)
        if self.averages is not None and self.kept_average is not None:
            kept_now = sound if isinstance(self.averages, Best) else improved
            self._keep(kept_now, self.kept_average, self.served(weights) if kept_now else weights)

    def drop(self, keep: list[int]) -> None:
        """Go on with the members at positions ``keep`` of the stack; the others keep what they have."""
        self.recipe = self.recipe.select(keep)
        self.standing = [self.standing[a] for a in keep]
        if self.averages is not None:
            self.averages.select(keep, self.recipe)

    def take_over(self, member: int, other: int) -> None:
        """Let one member of the pack keep what the other does."""
        own, theirs = self.entries[member], self.entries[other]
        own.best, own.best_epoch = theirs.best, theirs.best_epoch
        for kept in (self.kept, self.kept_average, self.iterates and self.iterates.held):
            for value in (kept or {}).values():
                value[member] = value[other]

    def follow(self, sources: list[int], recipe: Recipe) -> None:
        """Go on by another recipe, with the averages of the members at these positions of the stack."""
        self.recipe = recipe
        if self.averages is not None:
            self.averages.select(sources, recipe)

    @property
    def any_active(self) -> bool:
        """Whether some member still trains."""
        return any(entry.active for entry in self.entries)

    @property
    def active(self) -> list[int]:
        """Positions in the stack of the members that still train."""
        return [a for a, k in enumerate(self.standing) if self.entries[k].active]

    def state(self) -> tuple[Stack, dict[str, Any]]:
        """Everything a resumed ledger needs: tensors, and plain facts."""
        tensors = prefixed("kept", self.kept)
        if self.averages is not None and self.kept_average is not None:
            tensors |= prefixed("average", self.averages.held) | prefixed("kept_average", self.kept_average)
        if self.iterates is not None:
            tensors |= prefixed("kept_iterates", self.iterates.held)
        entries = [_plain(entry) for entry in self.entries]
        return tensors, {"num_steps": self.num_steps, "entries": entries, "standing": self.standing}

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Inverse of ``state``; values are copied into tensors laid out as they were, for equal bits."""
        if len(facts["standing"]) < len(self.standing):
            self.drop(facts["standing"])
        self.num_steps = facts["num_steps"]
        self.entries = [Entry(**entry) for entry in facts["entries"]]
        self.descents = _descents(self.members)
        for k, entry in enumerate(self.entries):
            for row in entry.history:
                self._lower(k, row)
        for prefix, own in (
            ("kept", self.kept),
            ("average", self.averages and self.averages.held),
            ("kept_average", self.kept_average),
            ("kept_iterates", self.iterates and self.iterates.held),
        ):
            for name, value in (own or {}).items():
                value.copy_(tensors[f"{prefix}/{name}"])

    def _lower(self, k: int, row: Mapping[str, float | int] | None = None) -> None:
        """Let a member's schedule see an epoch, its last one by default."""
        if (descent := self.descents.get(k)) is None:
            return
        descent.see(self.entries[k].history[-1] if row is None else row)
        if descent.lowered < 1:
            self.recipe.lowered[self.members[k].digest] = descent.lowered

    def _keep(self, members: list[int], kept: Stack, weights: Stack) -> None:
        """Copy the weights of the members at these positions of the stack to their places in the pack."""
        everyone = len(members) == len(self.entries)
        source = torch.tensor(members, dtype=torch.int64, device=self.recipe.device)
        target = torch.tensor(self.standing, dtype=torch.int64, device=self.recipe.device)[source]
        for name, value in weights.items() if members else ():
            if everyone:
                kept[name].copy_(value.detach())
            else:
                kept[name].index_copy_(0, target, value.detach().index_select(0, source))


def _plain(entry: Entry) -> dict[str, Any]:
    """The entry as JSON takes it; ``asdict`` would copy every value of every epoch there has been."""
    return {name: [*value] if isinstance(value, list) else value for name, value in vars(entry).items()}


def _descents(members: Sequence[MemberSpec]) -> dict[int, Descent]:
    """A fresh one for each member whose schedule watches how it does, by position."""
    schedules = [member.training.schedule for member in members]
    return {k: Descent(schedule) for k, schedule in enumerate(schedules) if isinstance(schedule, Plateau)}


def _diverge(entry: Entry, epoch: int, losses_S: Tensor) -> None:
    bad = (~torch.isfinite(losses_S)).nonzero()
    step = int(bad[0]) + 1 if len(bad) else len(losses_S)
    entry.status = "diverged"
    entry.reason = f"the loss or a weight was not finite at step {step} of epoch {epoch}"


def _improves(entry: Entry, rule: EarlyStopping | None, metrics: Mapping[str, float]) -> bool:
    if rule is None:
        return True
    sign = -toward_less(rule.metric)
    value = metrics[rule.metric]
    if math.isnan(value):
        return False
    better = entry.best is None or sign * (value - entry.best) > rule.min_delta
    if better:
        entry.best = value
        return True
    return False


def _out_of_patience(entry: Entry, rule: EarlyStopping | None, epoch: int) -> bool:
    return rule is not None and epoch - entry.best_epoch >= rule.patience


def _finite(weights: Stack) -> Tensor:
    """Whether all of each member's weights are finite, [K]."""
    flags = [
        w.isfinite().reshape(len(w), -1).all(1)
        for w in weights.values()
        if w.is_floating_point() and w[0].numel()
    ]
    return torch.stack(flags).all(0)


def _copy(weights: Mapping[str, Tensor]) -> Stack:
    return {name: weight.detach().clone() for name, weight in weights.items()}
