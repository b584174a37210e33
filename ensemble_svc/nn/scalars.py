"""Single learned numbers, which stand in place of a norm in networks of fixup (arXiv:1901.09321, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Shift(nn.Module):
    """Adds one learned number to everything."""

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((1,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class Scale(nn.Module):
    """Multiplies everything by one learned number."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale
