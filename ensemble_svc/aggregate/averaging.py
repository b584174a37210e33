"""Averages of weights: of the iterates of one training, or of several members.

A state is tensors by name. Floating point tensors are averaged in float64 and given back in their own type.
Whole numbers and booleans (counters) have no mean: the largest is kept, element by element, which for the
iterates of one training is the latest. No argument is ever written to.

A batch norm's running statistics are averaged like everything else, but the average network has other ones: they
are to be estimated again on training rows before it predicts.

Laws: the average of 1, 2, 3, 4 is 2.5; of copies, the copy; the order of the states does not matter, and
neither does whether they come at once or one by one.

Shapes: those of the state's tensors, whatever they are; [K, …] averages K packed members at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class RunningAverage:
    """Mean of the states so far (Polyak & Juditsky 1992; SWA: Izmailov et al. 2018, arXiv:1803.05407)."""

    weight: float = 0.0
    """Sum of the weights; the number of states where each has weight 1."""
    total: State | None = None
    """Means in float64; counters in their own type."""
    types: Mapping[str, torch.dtype] | None = None

    def add(self, state: State, weight: float = 1.0) -> RunningAverage:
        """With one more state.

        Raises:
            EnsembleError: names or shapes of another network; a weight that is not above 0 and finite.
        """
        if not 0 < weight < math.inf:
            raise EnsembleError(f"the weight of a state is {weight}; it must be above 0 and finite.")
        if self.total is None:
            return RunningAverage(weight, {name: _wide(v) for name, v in state.items()}, _types(state))
        check_same_network(self.total, state)
        share = weight / (self.weight + weight)
        total = {name: _toward(mean, state[name], share) for name, mean in self.total.items()}
        return RunningAverage(self.weight + weight, total, self.types)

    def result(self) -> dict[str, Tensor]:
        """The average, each tensor in the type of the first state's.

        Raises:
            EnsembleError: no state was added.
        """
        if self.total is None or self.types is None:
            raise EnsembleError("no state was added, so there is no average.")
        return {name: mean.to(self.types[name], copy=True) for name, mean in self.total.items()}


def average_states(states: Sequence[State], weights: Sequence[float] | None = None) -> dict[str, Tensor]:
    """The weighted mean of states: the uniform soup (Wortsman et al. 2022) where all weights are equal.

    Args:
        weights: relative, each from 0; a state of weight 0 is left out. Equal when absent.

    Raises:
        EnsembleError: no states, states of different networks, weights that are not theirs.
    """
    weights = [1.0] * len(states) if weights is None else list(weights)
    if len(weights) != len(states) or any(not 0 <= weight < math.inf for weight in weights):
        raise EnsembleError(f"the weights are {weights}; {len(states)} states need as many numbers from 0.")
    running = RunningAverage()
    for state, weight in zip(states, weights, strict=True):
        running = running.add(state, weight) if weight > 0 else running
    return running.result()


def last_n(states: Sequence[State], n: int) -> dict[str, Tensor]:
    """Mean of the last n states, of all where there are fewer.

    Raises:
        EnsembleError: n below 1, no states, states of different networks.
    """
    _check_count(n)
    return average_states(states[-n:])


def best_n(
    states: Sequence[State], scores: Sequence[float], n: int, *, higher_is_better: bool
) -> dict[str, Tensor]:
    """Mean of the n states of the best scores, of equal scores the later ones (they trained longer).

    Raises:
        EnsembleError: n below 1, not one finite score per state, no states, states of different networks.
    """
    _check_count(n)
    return average_states([states[i] for i in ranking(scores, len(states), higher_is_better)[:n]])


def ranking(scores: Sequence[float], count: int, higher_is_better: bool) -> list[int]:
    """Positions of the states from best to worst; of equal ones the later first.

    Raises:
        EnsembleError: not one finite score per state.
    """
    if len(scores) != count or not all(math.isfinite(score) for score in scores):
        raise EnsembleError(f"the scores are {list(scores)}; {count} states need a finite number each.")
    sign = -1 if higher_is_better else 1
    return sorted(range(count), key=lambda i: (sign * scores[i], -i))


def interpolate(first: State, second: State, share: float) -> dict[str, Tensor]:
    """The state at ``share`` of the straight way from the first to the second, in the first's types.

    Raises:
        EnsembleError: states of different networks.
    """
    check_same_network(first, second)
    moved = {name: _toward(_wide(value), second[name], share) for name, value in first.items()}
    return {name: value.to(first[name].dtype) for name, value in moved.items()}


def check_same_network(first: State, other: State) -> None:
    """Refuse to average what does not belong together.

    Raises:
        EnsembleError: naming the first tensor that one of them lacks or that has another shape or kind.
    """
    for name in [*first, *other]:
        if name not in first or name not in other:
            raise EnsembleError(
                f"'{name}' is in one state and not in the other; they are different networks."
            )
        one, two = first[name], other[name]
        if one.shape != two.shape or one.is_floating_point() != two.is_floating_point():
            raise EnsembleError(
                f"'{name}' is {one.dtype} of shape {list(one.shape)} in one state and {two.dtype} of shape "
                f"{list(two.shape)} in the other; they are different networks."
            )


def _wide(value: Tensor) -> Tensor:
    """A copy: training goes on in the tensors that were handed in."""
    return value.detach().to(torch.float64 if value.is_floating_point() else value.dtype, copy=True)


def _types(state: State) -> dict[str, torch.dtype]:
    return {name: value.dtype for name, value in state.items()}


def _toward(mean: Tensor, value: Tensor, share: float) -> Tensor:
    """A mean moved to take in a value; of counters the larger."""
    if mean.is_floating_point():
        return torch.lerp(mean, value.detach().to(mean), share)
    return torch.maximum(mean, value.detach())


def _check_count(n: int) -> None:
    if n < 1:
        raise EnsembleError(f"n is {n}; at least one state is averaged.")
