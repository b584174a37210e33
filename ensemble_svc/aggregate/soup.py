"""One network from several members' weights, and whether that may be done at all.

Members fine-tuned from one start often lie in one valley, so the mean of their weights is a good network that
costs one forward pass (model soups: Wortsman et al. 2022, arXiv:2203.05482). Members of independent starts do not:
between them the loss rises, and the height of that barrier (Frankle et al. 2020, arXiv:1912.05671) says so
before anyone relies on the soup.

The score and loss are the caller's functions of a state, which estimate a batch norm's statistics anew before
they measure; they are given held-out rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ensemble_svc.aggregate.averaging import RunningAverage, State, interpolate, ranking
from ensemble_svc.errors import EnsembleError


@dataclass(frozen=True)
class Soup:
    """The averaged state, and what is in it."""

    state: dict[str, Tensor]
    chosen: tuple[int, ...]
    """Positions of the ingredients in the order they were tried."""
    score: float
    """Of the soup; never worse than the best single state's."""


@dataclass(frozen=True)
class Barrier:
    """Loss along the straight way between two states."""

    shares: tuple[float, ...]
    """Where it was measured, from 0 (the first) to 1 (the second)."""
    losses: tuple[float, ...]

    @property
    def excess(self) -> tuple[float, ...]:
        """Loss above the straight line between the ends' losses, at each share; 0 at both ends."""
        first, last = self.losses[0], self.losses[-1]
        return tuple(
            loss - ((1 - share) * first + share * last)
            for share, loss in zip(self.shares, self.losses, strict=True)
        )

    @property
    def height(self) -> float:
        """The largest excess: 0 where the way is flat, falls, or sags; NaN where a loss is."""
        excess = self.excess
        return math.nan if any(math.isnan(value) for value in excess) else max(0.0, *excess)


def greedy_soup(states: Sequence[State], score: Callable[[State], float], *, higher_is_better: bool) -> Soup:
    """States tried from best to worst; each stays if the average with it is no worse than without.

    Calls ``score`` 2K - 1 times and holds two averages at once.

    Raises:
        EnsembleError: no states, states of different networks, a single state whose score is not finite.
    """
    alone = [score(state) for state in states]
    order = ranking(alone, len(states), higher_is_better)
    if not order:
        raise EnsembleError("there are no states to average.")
    sign = 1 if higher_is_better else -1
    running, chosen, best = RunningAverage().add(states[order[0]]), [order[0]], alone[order[0]]
    for i in order[1:]:
        with_it = running.add(states[i])
        value = score(with_it.result())
        if sign * value >= sign * best:
            running, best = with_it, value
            chosen.append(i)
    return Soup(running.result(), tuple(chosen), best)


def barrier(first: State, second: State, loss: Callable[[State], float], *, points: int = 11) -> Barrier:
    """The loss at equal steps from one state to the other, both ends with them.

    Args:
        loss: less is better.
        points: at least 3; an odd number measures the middle, the soup of the two.

    Raises:
        EnsembleError: states of different networks; fewer than 3 points.
    """
    if points < 3:
        raise EnsembleError(f"points is {points}; a barrier needs the two ends and at least one between.")
    shares = tuple(i / (points - 1) for i in range(points))
    return Barrier(shares, tuple(loss(interpolate(first, second, share)) for share in shares))
