"""What the chosen members say of all rows, looked at a piece at a time: none of it is copied as a whole.

Shapes: K members, N rows, n rows of a piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

NUMBERS = 1 << 22
"""Of the members, looked at together."""

Said = Mapping[str, Tensor | Sequence[Tensor]]
"""By name the members' predictions, [K, N, …]: stacked, or each one's own [N, …]."""


def pieces(said: Said) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """The rows in order, and what all members say of them [K, n, …]; at least one piece."""
    stacks = list(said.values())
    num_rows = len(stacks[0][0])
    each = sum(len(stack) * stack[0][:1].numel() for stack in stacks)
    step = max(1, NUMBERS // max(1, each))
    for start in range(0, max(1, num_rows), step):
        rows = slice(start, min(start + step, num_rows))
        yield rows, {name: _of_rows(stack, rows) for name, stack in said.items()}


def _of_rows(stack: Tensor | Sequence[Tensor], rows: slice) -> Tensor:
    if isinstance(stack, Tensor):
        return stack[:, rows]
    return torch.stack([one[rows] for one in stack])
