"""What K members share and in what they differ, ready for a training step.

Shapes: K members, B rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from ensemble_svc.nn.heads import resolve_loss
from ensemble_svc.nn.tasks import Answer, Heads
from ensemble_svc.optim.layers import ALIKE, Layers
from ensemble_svc.optim.moving import Moving, moving
from ensemble_svc.optim.schedule import Pace
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.spec.averages import Average, Cycles
from ensemble_svc.spec.losses import CrossEntropy
from ensemble_svc.spec.model import ImageNetwork, Model, Network
from ensemble_svc.spec.optimizers import Optimizer
from ensemble_svc.spec.randomness import Purpose, derive_seed
from ensemble_svc.spec.regularizers import L1, L2, InputNoise, MaxNorm, WeightNoise
from ensemble_svc.spec.training import TrainingSpec
from ensemble_svc.train.mixing import Mixing


@dataclass(frozen=True)
class Recipe:
    """The training of a pack: the shared structure, and a value per member of what may differ."""

    members: tuple[MemberSpec, ...]
    steps_per_epoch: int
    device: torch.device
    lead: MemberSpec
    """The member that seeds the draws: the pack's first one, also when it is dropped, and of several strands
    each one's first."""
    member_s: float | None = None
    """Seconds that the arithmetic of one member's step takes a core, about; None where it is unknown."""
    lowered: dict[str, float] = field(default_factory=dict, compare=False)
    """What plateaus have left of members' rates, by digest, written by the ledger at an epoch's end; 1 where
    none is given. One for all selections of the recipe."""
    heads: Heads | None = None
    """Of several tasks."""

    def select(self, members: Sequence[int]) -> Recipe:
        """The recipe of some of the members, by position."""
        return replace(self, members=tuple(self.members[k] for k in members))

    @property
    def core_s(self) -> float | None:
        """Seconds that the arithmetic of all members' step takes one core, about."""
        return None if self.member_s is None else self.member_s * len(self.members)

    @property
    def shared(self) -> TrainingSpec:
        """The first member's recipe; the others' differ from it in elementwise options alone."""
        return self.members[0].training

    @cached_property
    def loss(self) -> Answer:
        """The loss, ``auto`` resolved, or the heads that have one each."""
        task = self.members[0].task
        if task == "multitask":
            assert self.heads is not None
            return self.heads
        return resolve_loss(task, self.shared.loss)

    @property
    def rules(self) -> Sequence[Optimizer]:
        """Each member's optimiser."""
        return [member.training.optimizer for member in self.members]

    @cached_property
    def _paces(self) -> tuple[Pace, ...]:
        """Each member's schedule over its own number of steps."""
        trainings = [member.training for member in self.members]
        steps = self.steps_per_epoch
        return tuple(
            Pace(t.schedule, steps * t.epochs, steps, t.average if isinstance(t.average, Cycles) else None)
            for t in trainings
        )

    @property
    def paces(self) -> tuple[tuple[Pace, float], ...]:
        """What the factors follow from: members whose paces are equal get the same at every step of an epoch."""
        return tuple(zip(self._paces, self._lowered, strict=True))

    @property
    def _lowered(self) -> list[float]:
        return [self.lowered.get(member.digest, 1.0) for member in self.members]

    def factors(self, step: int) -> float | list[float]:
        """What multiplies the learning rates at ``step``: one number where all members agree."""
        if self._one_pace and not self.lowered:
            return self._paces[0].factor(step)
        return [pace.factor(step, left) for pace, left in self.paces]

    def factor_of_each(self, step: int) -> list[float]:
        """The same, a number for each member."""
        found = self.factors(step)
        return found if isinstance(found, list) else [found] * len(self.members)

    @cached_property
    def _one_pace(self) -> bool:
        """Found once: schedules are slow to compare, and every step asks."""
        return len(set(self._paces)) == 1

    @cached_property
    def moving(self) -> Moving | None:
        """How the members' averages move with every step; None where they do not."""
        return moving(self.averages, [pace.total_steps for pace in self._paces], self.device)

    @property
    def averages(self) -> list[Average]:
        """Each member's average, all of one kind."""
        return [member.training.average for member in self.members]

    @cached_property
    def clip_K(self) -> Tensor | None:
        """Largest gradient norm of each member; None where none is clipped."""
        norms = [m.training.clip_norm for m in self.members]
        return self._vector([n if n is not None else torch.inf for n in norms]) if any(norms) else None

    @cached_property
    def own_K(self) -> dict[str, Tensor]:
        """What acts inside a step with a strength per member: name → [K]; only what some member uses."""
        wanted = {
            "input_noise": self._stds(InputNoise),
            "weight_noise": self._stds(WeightNoise),
        }
        return {name: self._vector(values) for name, values in wanted.items() if any(values)}

    @cached_property
    def mixing(self) -> Mixing | None:
        """How the members mix the rows of a batch; None where none does."""
        return Mixing.of(self.members, self.device)

    @cached_property
    def draws(self) -> bool:
        """Whether a step draws random numbers; a network of the user's own may."""
        models = [m.model for m in self.members]
        own = any(map(_draws, models))
        noisy = bool(self.own_K.keys() & {"input_noise", "weight_noise"})
        return own or bool(self.members[0].augment) or noisy or self.mixing is not None

    @cached_property
    def smoothing_K(self) -> Tensor | None:
        """The members' label smoothing where they differ in it; None where the loss's own is everyone's."""
        losses = [m.training.loss for m in self.members]
        values = [loss.label_smoothing for loss in losses if isinstance(loss, CrossEntropy)]
        return torch.tensor(values, device=self.device) if len(set(values)) > 1 else None

    @cached_property
    def penalties(self) -> tuple[tuple[int, Tensor], ...]:
        """(norm, strengths [K]) for each penalty."""
        kinds = enumerate(self.shared.regularizers)
        return tuple((1 if isinstance(r, L1) else 2, self._strengths(i)) for i, r in kinds if _penalises(r))

    def penalty_K(
        self, weights_K: Mapping[str, Tensor], names: Sequence[str], *, member: int | None = None
    ) -> Tensor | float:
        """What the regularisers add to each member's loss [K].

        Args:
            names: the penalised weights.
            member: position of the only member whose weights these are.
        """
        total: Tensor | float = 0.0
        for norm, strengths_K in self.penalties:
            strength_K = strengths_K if member is None else strengths_K[member : member + 1]
            for name in names:
                flat = weights_K[name].flatten(1)
                size_K = flat.abs().sum(1) if norm == 1 else flat.square().sum(1) / 2
                total = total + strength_K * size_K
        return total

    @cached_property
    def constrains(self) -> bool:
        """Whether weights are changed after the optimiser's step."""
        return self._shrink_K is not None or self._longest_K is not None

    @torch.no_grad()
    def constrain(
        self,
        weights_K: Mapping[str, Tensor],
        names: Sequence[str],
        factors: float | Sequence[float],
        layers: Layers = ALIKE,
    ) -> None:
        """Change the weights of a finished step as constraints ask, in place: shrink them, then shorten them.

        Args:
            names: the penalised weights.
            factors: of the learning rates in that step, as ``factors`` gives them.
            layers: the parameters' roles, which tell their rates.
        """
        for name in names:
            weight = weights_K[name]
            if self._shrink_K is not None:
                each = [factors] * len(self.members) if isinstance(factors, int | float) else factors
                rates = [
                    layers.rate(rule, name) * factor for rule, factor in zip(self.rules, each, strict=True)
                ]
                threshold = along(self._shrink_K * self._vector(rates), weight)
                weight.copy_(weight.sign() * (weight.abs() - threshold).clamp_min(0))
            if self._longest_K is not None:
                norm = weight.flatten(2).norm(dim=2)
                scale = (self._longest_K[:, None] / norm.clamp_min(1e-30)).clamp(max=1.0)
                weight.mul_(scale.view(*scale.shape, *[1] * (weight.dim() - 2)))

    @cached_property
    def _shrink_K(self) -> Tensor | None:
        """Strengths of the proximal L1 penalties."""
        totals = [
            sum(r.strength for r in m.training.regularizers if isinstance(r, L1) and r.proximal)
            for m in self.members
        ]
        return self._vector(totals) if any(totals) else None

    @cached_property
    def _longest_K(self) -> Tensor | None:
        """The members' largest lengths of a unit's weights."""
        norms = [
            min((r.norm for r in m.training.regularizers if isinstance(r, MaxNorm)), default=torch.inf)
            for m in self.members
        ]
        return self._vector(norms) if min(norms) < torch.inf else None

    def seed(self, purpose: Purpose, epoch: int, step: int, generator: torch.Generator | None = None) -> None:
        """Make a generator, or torch's global ones, a function of the lead, epoch and step.

        ``torch.manual_seed`` would do the same, and on a machine without a GPU spend more than the step
        of a small network on looking for one.
        """
        seed = derive_seed(self.lead.job_seed, self.lead.index, purpose, epoch, step)
        if generator is not None:
            generator.manual_seed(seed)
            return
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _strengths(self, position: int) -> Tensor:
        rules = [m.training.regularizers[position] for m in self.members]
        return self._vector([r.strength for r in rules if isinstance(r, L1 | L2)])

    def _stds(self, kind: type[InputNoise] | type[WeightNoise]) -> list[float]:
        """Independent noises add up in variance."""
        return [
            sum(r.std**2 for r in m.training.regularizers if isinstance(r, kind)) ** 0.5 for m in self.members
        ]

    def _vector(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=self.device)


def _draws(model: Model) -> bool:
    if not isinstance(model, Network):
        return True
    channels = isinstance(model, ImageNetwork) and model.channel_dropout > 0
    return channels or model.dropout > 0 or model.activation_noise > 0


def _penalises(rule: object) -> bool:
    return isinstance(rule, L2) or (isinstance(rule, L1) and not rule.proximal)


def along(values_K: Tensor, stacked: Tensor) -> Tensor:
    """A value per member, to broadcast over a stack."""
    return values_K.view(-1, *[1] * (stacked.dim() - 1))


Own = Mapping[str, Tensor]
"""One member's values of ``Recipe.own_K``."""
