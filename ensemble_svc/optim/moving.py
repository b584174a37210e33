"""Averages that move with every step, each member's with its own decay or its own start.

Shapes: K members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ensemble_svc.optim.average import ema_update, mean_update
from ensemble_svc.spec.averages import Average, Ema, Polyak


class Moving(Protocol):
    """How the averages of K members take in the weights after each step."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the averages' floats."""

    def update(self, average: Mapping[str, Tensor], weights: Mapping[str, Tensor], num_steps: int) -> None:
        """Take in the weights after step ``num_steps``, counted from 1, in place."""

    def begun(self, num_steps: int) -> list[bool]:
        """Whether each member's average holds anything after so many steps, [K]."""


def moving(averages: Sequence[Average], total_steps: Sequence[int], device: torch.device) -> Moving | None:
    """The averages of K members, all of one kind; None where that kind does not move with the steps."""
    decays = [average.decay for average in averages if isinstance(average, Ema)]
    pairs = zip(averages, total_steps, strict=True)
    firsts = [average.first_step(steps) for average, steps in pairs if isinstance(average, Polyak)]
    if decays:
        return Emas(len(decays), _one_or_each(decays, device))
    return Means(tuple(firsts), _one_or_each(firsts, device)) if firsts else None


@dataclass(frozen=True)
class Emas:
    """Exponential moving averages."""

    number: int
    decay_K: Tensor | float
    dtype: torch.dtype = torch.float32

    def update(self, average: Mapping[str, Tensor], weights: Mapping[str, Tensor], num_steps: int) -> None:
        ema_update(average, weights, self.decay_K, num_steps)

    def begun(self, num_steps: int) -> list[bool]:
        return [num_steps > 0] * self.number


@dataclass(frozen=True)
class Means:
    """Means of all weights after each member's first steps, which count for nothing."""

    firsts: tuple[int, ...]
    first_K: Tensor | float
    dtype: torch.dtype = torch.float64

    def update(self, average: Mapping[str, Tensor], weights: Mapping[str, Tensor], num_steps: int) -> None:
        if num_steps <= min(self.firsts):
            return
        count_K = num_steps - self.first_K
        mean_update(average, weights, 1 / (count_K.clamp(min=1) if isinstance(count_K, Tensor) else count_K))

    def begun(self, num_steps: int) -> list[bool]:
        return [num_steps > first for first in self.firsts]


def _one_or_each(values: Sequence[float], device: torch.device) -> Tensor | float:
    """One number where all agree, else a vector in double precision."""
    if len(set(values)) == 1:
        return values[0]
    return torch.tensor(values, dtype=torch.float64, device=device)
