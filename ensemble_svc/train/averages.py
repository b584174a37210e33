"""The averaged weights of the members in a stack, and how each kind of average takes in what it averages.

All that an average holds lies in ``held``, a row for each member, which is committed; everything else follows
from the number of steps. Shapes: A members that stand in the stack, n places of a ring.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ensemble_svc.optim.average import mean_update
from ensemble_svc.optim.blocks import gathered
from ensemble_svc.optim.moving import Moving
from ensemble_svc.spec.averages import BestN, Cycles, Ema, LastN, NoAverage, Polyak
from ensemble_svc.spec.direction import toward_less
from ensemble_svc.train.assemble import Stack
from ensemble_svc.train.recipe import Recipe, along


class Averages(ABC):
    """Averages of A members; a member without one yet is served as it is."""

    held: Stack

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @property
    def moving(self) -> Stack | None:
        """What the steps themselves bring up to date by ``Recipe.moving``."""
        return None

    @abstractmethod
    def take_epoch(self, epoch: int, weights: Stack) -> None:
        """Account for the end of an epoch, counted from 1."""

    @abstractmethod
    def begun(self, num_steps: int) -> list[bool]:
        """Whether each member's average holds anything after so many steps, [A]."""

    @abstractmethod
    def mean(self, num_steps: int) -> Stack:
        """The averages in the types of the weights; of members that have none yet, anything."""

    def served(self, weights: Stack, num_steps: int) -> Stack:
        """The averages after so many steps, and the weights as they are of members that have none yet."""
        begun = self.begun(num_steps)
        if not any(begun):
            return weights
        mean = self.mean(num_steps)
        return mean if all(begun) else mixed(begun, mean, weights)

    def select(self, keep: Sequence[int], recipe: Recipe) -> None:
        """Go on with the members at these positions, whose recipe is ``recipe``."""
        index = torch.tensor(keep, device=recipe.device)
        self.recipe = recipe
        self.held = {name: gathered(value, index) for name, value in self.held.items()}

    def _epochs(self, num_steps: int) -> int:
        return num_steps // self.recipe.steps_per_epoch


def averages_of(recipe: Recipe, weights: Stack) -> Averages | None:
    """The averages of members that begin with ``weights``; None where they have none."""
    match recipe.averages[0]:
        case NoAverage():
            return None
        case Ema() | Polyak():
            return Stepped(recipe, weights)
        case Cycles():
            return Cycled(recipe, weights)
        case LastN(n=n):
            return Last(recipe, weights, n)
        case BestN(n=n, metric=metric):
            return Best(recipe, weights, n, metric)


class Stepped(Averages):
    """One update per step: ``ema`` and ``polyak``."""

    def __init__(self, recipe: Recipe, weights: Stack) -> None:
        super().__init__(recipe)
        self.held = _copies(weights, self._rule.dtype)
        self._types = {name: value.dtype for name, value in weights.items()}

    @property
    def _rule(self) -> Moving:
        assert self.recipe.moving is not None
        return self.recipe.moving

    @property
    def moving(self) -> Stack:
        return self.held

    def take_epoch(self, epoch: int, weights: Stack) -> None:
        """The steps have done it."""

    def begun(self, num_steps: int) -> list[bool]:
        return self._rule.begun(num_steps)

    def mean(self, num_steps: int) -> Stack:
        return {name: value.to(self._types[name]) for name, value in self.held.items()}


class Cycled(Averages):
    """The mean of the weights at the ends of cycles: ``swa`` and ``swag``."""

    def __init__(self, recipe: Recipe, weights: Stack) -> None:
        super().__init__(recipe)
        self.held = _copies(weights, torch.float64)
        self._types = {name: value.dtype for name, value in weights.items()}

    def take_epoch(self, epoch: int, weights: Stack) -> None:
        counts, before = self._counts(epoch), self._counts(epoch - 1)
        shares = [1 / now if now > then else 0.0 for now, then in zip(counts, before, strict=True)]
        if any(shares):
            device = self.recipe.device
            mean_update(self.held, weights, torch.tensor(shares, dtype=torch.float64, device=device))

    def begun(self, num_steps: int) -> list[bool]:
        return [count > 0 for count in self._counts(self._epochs(num_steps))]

    def mean(self, num_steps: int) -> Stack:
        return {name: value.to(self._types[name]) for name, value in self.held.items()}

    def _counts(self, epoch: int) -> list[int]:
        trainings = [member.training for member in self.recipe.members]
        return [t.average.num_cycles(epoch, t.epochs) for t in trainings if isinstance(t.average, Cycles)]


class Last(Averages):
    """The mean of the weights at the ends of the last n epochs, which take turns in a ring [A, n, …]."""

    def __init__(self, recipe: Recipe, weights: Stack, n: int) -> None:
        super().__init__(recipe)
        self.n, self.held = n, _ring(weights, n)

    def take_epoch(self, epoch: int, weights: Stack) -> None:
        for name, ring in self.held.items():
            ring[:, (epoch - 1) % self.n].copy_(weights[name].detach())

    def begun(self, num_steps: int) -> list[bool]:
        return [num_steps > 0] * len(self.recipe.members)

    def mean(self, num_steps: int) -> Stack:
        epochs = self._epochs(num_steps)
        newest, count = (epochs - 1) % self.n, min(epochs, self.n)
        return {
            name: _mean(ring[:, :count], count) if ring.is_floating_point() else ring[:, newest]
            for name, ring in self.held.items()
        }


class Best(Averages):
    """The mean of the weights at the ends of the n best epochs, in a ring [A, n, …] with their scores.

    The smaller score is the better, infinite where a place is empty; an epoch whose metric is not finite is
    none of the best. Of equal epochs the later is given up.
    """

    def __init__(self, recipe: Recipe, weights: Stack, n: int, metric: str) -> None:
        super().__init__(recipe)
        self.metric, ring = metric, _ring(weights, n)
        score_An = torch.full((len(recipe.members), n), torch.inf, dtype=torch.float64, device=recipe.device)
        self.held = ring | {"score": score_An, "epoch": torch.zeros_like(score_An, dtype=torch.int64)}

    def take_epoch(self, epoch: int, weights: Stack) -> None:
        """The metrics are awaited."""

    def take_ranks(self, epoch: int, weights: Stack, metrics: Mapping[str, Tensor]) -> None:
        """Account for an epoch's validation metrics [A], which are those of the weights as they are."""
        score_An, epoch_An = self.held["score"], self.held["epoch"]
        score_A = toward_less(self.metric) * metrics[self.metric].to(score_An)
        worst_A = score_An.amax(1)
        place_A = epoch_An.masked_fill(score_An != worst_A.unsqueeze(1), -1).argmax(1)
        (better,) = (score_A < worst_A).nonzero(as_tuple=True)
        places = place_A[better]
        score_An[better, places] = score_A[better]
        epoch_An[better, places] = epoch
        for name, weight in weights.items():
            self.held[name][better, places] = weight.detach()[better]

    def begun(self, num_steps: int) -> list[bool]:
        found: list[bool] = self.held["score"].isfinite().any(1).tolist()
        return found

    def mean(self, num_steps: int) -> Stack:
        count_A = self.held["score"].isfinite().sum(1).clamp(min=1)
        newest_A = self.held["epoch"].argmax(1)
        every_A = torch.arange(len(newest_A), device=newest_A.device)
        return {
            name: _mean(ring, count_A) if ring.is_floating_point() else ring[every_A, newest_A]
            for name, ring in self.held.items()
            if name not in ("score", "epoch")
        }


def mixed(chosen: Sequence[bool], ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Stack:
    """``ours`` for the chosen members, ``theirs`` for the others."""
    where_A = torch.tensor(chosen, device=next(iter(ours.values())).device)
    return {name: torch.where(along(where_A, value), value, theirs[name]) for name, value in ours.items()}


def _copies(weights: Mapping[str, Tensor], dtype: torch.dtype) -> Stack:
    """Copies of the weights, their floats in another type."""
    return {
        name: weight.detach().to(dtype if weight.is_floating_point() else weight.dtype, copy=True)
        for name, weight in weights.items()
    }


def _ring(weights: Mapping[str, Tensor], n: int) -> Stack:
    """Room for n copies of each member's weights, all 0."""
    return {name: weight.new_zeros(len(weight), n, *weight.shape[1:]) for name, weight in weights.items()}


def _mean(ring_An: Tensor, count: Tensor | int) -> Tensor:
    """The sum over the ring's places, in float64, over ``count``, one for all or one per member."""
    total_A = ring_An.sum(1, dtype=torch.float64)
    over = along(count, total_A) if isinstance(count, Tensor) else count
    return (total_A / over).to(ring_An.dtype)
