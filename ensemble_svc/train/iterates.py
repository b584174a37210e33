"""What a training leaves behind it of its iterates, from which members of the ensemble are made.

It lies in ``held``, a row for each member of the pack, and is committed. Snapshots are the weights at the
ends of the last cycles; SWAG needs how the weights at the ends of cycles spread around their mean.
Shapes: K members of the pack, A ≤ K that stand in its stack, S snapshots, L deviations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ensemble_svc.aggregate import swag
from ensemble_svc.aggregate.averaging import RunningAverage
from ensemble_svc.plan.plan import MemberSpec, draw_seed
from ensemble_svc.spec.averages import Swag
from ensemble_svc.spec.virtual import cycle_ends
from ensemble_svc.train.assemble import Stack
from ensemble_svc.train.averages import Averages


class Iterates(ABC):
    """Of K members, which leave the stack at different times."""

    held: Stack

    def __init__(self, members: Sequence[MemberSpec]) -> None:
        self.members = members

    @abstractmethod
    def take_epoch(
        self, epoch: int, weights: Stack, standing: Sequence[int], averages: Averages | None
    ) -> None:
        """Account for the end of an epoch, counted from 1.

        Args:
            weights: of the members in the stack, [A, …].
            standing: their positions in the pack.
            averages: theirs, which have taken the epoch in.
        """

    @abstractmethod
    def states(self, number: int, served: Stack) -> Stack:
        """The weights [K, …] of each member's snapshot or draw ``number``, counted from 0.

        Args:
            served: the members' averages [K, …], or weights as they are.
        """


def iterates_of(members: Sequence[MemberSpec], weights: Stack) -> Iterates | None:
    """Of members that begin with ``weights``; None where nothing is asked of them."""
    if members[0].snapshots:
        return Snapshots(members, weights, members[0].snapshots)
    average = members[0].training.average
    return Spread(members, weights, average.rank) if isinstance(average, Swag) else None


class Snapshots(Iterates):
    """The weights at the ends of the last S cycles [K, S, …], oldest first; until then the initial ones."""

    def __init__(self, members: Sequence[MemberSpec], weights: Stack, num: int) -> None:
        super().__init__(members)
        self.ends = [cycle_ends(member.training)[-num:] for member in members]
        self.held = {
            name: weight.detach().unsqueeze(1).repeat_interleave(num, 1) for name, weight in weights.items()
        }

    def take_epoch(
        self, epoch: int, weights: Stack, standing: Sequence[int], averages: Averages | None
    ) -> None:
        ended = [(a, k, self.ends[k].index(epoch)) for a, k in enumerate(standing) if epoch in self.ends[k]]
        if not ended:
            return
        a, k, place = (_index(column, weights) for column in zip(*ended, strict=True))
        for name, weight in weights.items():
            self.held[name][k, place] = weight.detach()[a]

    def states(self, number: int, served: Stack) -> Stack:
        return {name: value[:, number].clone() for name, value in self.held.items()}


class Spread(Iterates):
    """Variances [K, …], times their number, and the last L deviations [K, L, …] in a ring: ``swag``.

    Sums of squared deviations are brought up to date from the newest one (Welford 1962), so that float32 holds them.
    """

    def __init__(self, members: Sequence[MemberSpec], weights: Stack, rank: int) -> None:
        super().__init__(members)
        self.rank = rank
        floats = {name: weight.detach() for name, weight in weights.items() if weight.is_floating_point()}
        self.held = {f"squares/{name}": torch.zeros_like(weight) for name, weight in floats.items()}
        if rank:
            for name, weight in floats.items():
                self.held[f"deviations/{name}"] = weight.new_zeros(len(weight), rank, *weight.shape[1:])

    def take_epoch(
        self, epoch: int, weights: Stack, standing: Sequence[int], averages: Averages | None
    ) -> None:
        assert averages is not None
        counts = {k: self._count(k, epoch) for k in standing if epoch in cycle_ends(self.members[k].training)}
        for a, k in enumerate(standing):
            if k in counts:
                self._take(
                    k, counts[k], {name: weights[name][a] - averages.held[name][a] for name in self._names}
                )

    def _take(self, k: int, count: int, deviation: Stack) -> None:
        """Take in a member's newest deviation from the mean that includes it."""
        for name, value in deviation.items():
            if count > 1:
                self.held[f"squares/{name}"][k] += value.square() * (count / (count - 1))
            if self.rank:
                self.held[f"deviations/{name}"][k, (count - 1) % self.rank] = value.float()

    def states(self, number: int, served: Stack) -> Stack:
        each = [self._draw(k, number, served) for k in range(len(self.members))]
        return {name: torch.stack([one[name] for one in each]) for name in served}

    def _draw(self, k: int, number: int, served: Stack) -> Stack:
        """The same on every device; the mean itself where there is no spread yet."""
        member = self.members[k]
        rule = member.training.average
        assert isinstance(rule, Swag)
        mean = {name: value[k].detach().cpu() for name, value in served.items()}
        count = self._count(k, member.training.epochs)
        generator = torch.Generator().manual_seed(draw_seed(member, number))
        return self.moments(k, mean, count).sample(generator, scale=rule.scale)

    def moments(self, k: int, mean: Stack, count: int) -> swag.Swag:
        """A member's moments after ``count`` ends of cycles, whose mean is ``mean``."""
        types = {name: value.dtype for name, value in mean.items()}
        wide = {name: mean[name].double() for name in self._names}
        squares = {name: self.held[f"squares/{name}"][k].cpu().double() / count for name in self._names}
        square = {name: squares[name] + wide[name].square() for name in self._names}
        return swag.Swag(
            self.rank,
            RunningAverage(count, {**mean, **wide}, types),
            RunningAverage(count, square, types),
            tuple(self._deviation(k, c) for c in range(max(0, count - self.rank), count))
            if self.rank
            else (),
        )

    def _deviation(self, k: int, number: int) -> Stack:
        place = number % self.rank
        return {name: self.held[f"deviations/{name}"][k, place].cpu().double() for name in self._names}

    def _count(self, k: int, epoch: int) -> int:
        training = self.members[k].training
        assert isinstance(training.average, Swag)
        return training.average.num_cycles(epoch, training.epochs)

    @property
    def _names(self) -> list[str]:
        return [name.removeprefix("squares/") for name in self.held if name.startswith("squares/")]


def _index(values: Sequence[int], weights: Stack) -> Tensor:
    return torch.tensor(values, device=next(iter(weights.values())).device)
