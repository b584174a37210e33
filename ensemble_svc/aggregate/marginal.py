"""What one more member would add to an ensemble that was chosen without it.

Shapes: K members.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ensemble_svc.aggregate.pools import Pool
from ensemble_svc.aggregate.selection import greedy


def marginal_gains(pool: Pool, max_picks: int) -> list[float]:
    """How much better the greedy ensemble of the others scores with each member once more in it, in the score's units.

    The greedy ensemble of all is that of the others for a member that it has not chosen, so only those that it has
    chosen cost a selection of their own. Alone a member gains its own score over 0: minus it where less is better.

    Args:
        max_picks: of each selection.

    Returns:
        K numbers, more is better; below 0 for a member that would make the ensemble worse.
    """
    if pool.num_members == 1:
        return [-_error(pool, pool.trial(pool.empty(), 0, [0])[0])]
    picks = greedy(pool, max_picks).picks
    gains = _gains(pool, picks, range(pool.num_members))
    for k in set(picks):
        others = _Others(pool, tuple(i for i in range(pool.num_members) if i != k))
        chosen = [others.those[i] for i in greedy(others, max_picks).picks]
        (gains[k],) = _gains(pool, chosen, [k])
    return gains


def _gains(pool: Pool, picks: Sequence[int], among: Sequence[int]) -> list[float]:
    """What each of some members adds to an ensemble of picks."""
    total = pool.empty()
    for pick in picks[:-1]:
        total = pool.add(total, pick)
    (now,) = pool.trial(total, len(picks) - 1, [picks[-1]])
    total = pool.add(total, picks[-1])
    return [_error(pool, now) - _error(pool, then) for then in pool.trial(total, len(picks), among)]


def _error(pool: Pool, score: float) -> float:
    return -score if pool.higher_is_better else score


@dataclass(frozen=True)
class _Others:
    """Some of a pool's members, as a pool."""

    pool: Pool
    those: tuple[int, ...]

    @property
    def num_members(self) -> int:
        return len(self.those)

    @property
    def higher_is_better(self) -> bool:
        return self.pool.higher_is_better

    def empty(self) -> Tensor:
        return self.pool.empty()

    def add(self, total: Tensor, member: int) -> Tensor:
        return self.pool.add(total, self.those[member])

    def trial(self, total: Tensor, size: int, among: Sequence[int]) -> list[float]:
        return self.pool.trial(total, size, [self.those[i] for i in among])
