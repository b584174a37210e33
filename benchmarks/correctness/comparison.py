"""A quantity beside another implementation of it, and the random problems that both are given.

Shapes: K members, N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Cases = Iterator[float]
"""Differences, one for each case."""


@dataclass(frozen=True)
class Comparison:
    """One quantity beside an implementation that shares no code with ours."""

    quantity: str
    other: str
    differences: Callable[[torch.Generator], Cases]
    within: float
    """Largest difference that counts as equal."""


def all_within(found: Sequence[float], within: float) -> bool:
    """Whether there are differences and none is too large; NaN is, wherever it stands."""
    return bool(found) and all(one <= within for one in found)


def classes(draw: torch.Generator, rows: int = 500, num: int = 7) -> tuple[Tensor, Tensor]:
    target = torch.randint(num, (rows,), generator=draw)
    logits = torch.randn(rows, num, generator=draw, dtype=torch.float64) * 2
    logits += 1.5 * nn.functional.one_hot(target, num)
    return logits.log_softmax(1), target


def numbers(draw: torch.Generator, members: int = 5, rows: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    mean = torch.randn(members, rows, 1, generator=draw, dtype=torch.float64)
    log_variance = torch.randn(members, rows, 1, generator=draw, dtype=torch.float64)
    return mean, log_variance, torch.randn(rows, 1, generator=draw, dtype=torch.float64)
