"""What K members share and in what they differ, ready for a training step.

Shapes: K members, B rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ensemble_svc.nn.heads import resolve_loss
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.spec.randomness import Purpose, derive_seed
from ensemble_svc.spec.training import L1, L2, CrossEntropy, Ema, GaussianNll, Mse, Optimizer, TrainingSpec


@dataclass(frozen=True)
class Recipe:
    """The training of a pack: the shared structure, and a value per member of what may differ."""

    members: tuple[MemberSpec, ...]
    steps_per_epoch: int
    device: torch.device

    @property
    def shared(self) -> TrainingSpec:
        """The first member's recipe; the others' differ from it in elementwise options alone."""
        return self.members[0].training

    @cached_property
    def loss(self) -> CrossEntropy | GaussianNll | Mse:
        """The loss, ``auto`` resolved."""
        return resolve_loss(self.members[0].task, self.shared.loss)

    @property
    def rules(self) -> Sequence[Optimizer]:
        """Each member's optimiser."""
        return [member.training.optimizer for member in self.members]

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.steps_per_epoch * self.shared.epochs

    @cached_property
    def decay(self) -> Tensor | float | None:
        """Decay of the members' moving averages, [K] where they differ; None without one."""
        if not isinstance(self.shared.average, Ema):
            return None
        decays = [m.training.average.decay for m in self.members if isinstance(m.training.average, Ema)]
        if len(set(decays)) == 1:
            return decays[0]
        return torch.tensor(decays, dtype=torch.float64, device=self.device)

    @cached_property
    def smoothing_K(self) -> Tensor | None:
        """The members' label smoothing where they differ in it; None where the loss's own is everyone's."""
        losses = [m.training.loss for m in self.members]
        values = [loss.label_smoothing for loss in losses if isinstance(loss, CrossEntropy)]
        return torch.tensor(values, device=self.device) if len(set(values)) > 1 else None

    @cached_property
    def penalties(self) -> tuple[tuple[int, Tensor], ...]:
        """(norm, strengths [K]) for each regulariser."""
        return tuple((_norm(rule), self._strengths(i)) for i, rule in enumerate(self.shared.regularizers))

    def penalty_K(self, weights_K: Mapping[str, Tensor], names: Sequence[str]) -> Tensor | float:
        """What the regularisers add to each member's loss [K]; ``names`` are the penalised weights."""
        total: Tensor | float = 0.0
        for norm, strength_K in self.penalties:
            for name in names:
                flat = weights_K[name].flatten(1)
                size_K = flat.abs().sum(1) if norm == 1 else flat.square().sum(1) / 2
                total = total + strength_K * size_K
        return total

    def seed(self, purpose: Purpose, epoch: int, step: int) -> None:
        """Make torch's global generator a function of the pack's first member, epoch and step."""
        first = self.members[0]
        torch.manual_seed(derive_seed(first.job_seed, first.index, purpose, epoch, step))

    def _strengths(self, position: int) -> Tensor:
        values = [m.training.regularizers[position].strength for m in self.members]
        return torch.tensor(values, device=self.device)


def _norm(rule: L1 | L2) -> int:
    match rule:
        case L1():
            return 1
        case L2():
            return 2
