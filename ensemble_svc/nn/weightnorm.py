"""Weight normalisation (Salimans & Kingma 2016, arXiv:1602.07868): w = g v / |v| for each unit.

``weight`` holds v and ``gain`` g, so penalties, noise and initial weights find the directions under the name that
weights have everywhere. torch's own parametrisation makes a new class for each layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_LENGTH = 1e-12


class WeightNormLinear(nn.Linear):
    """A linear layer whose units' weights have learned lengths."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__(num_in, num_out)
        self.gain = nn.Parameter(torch.ones(num_out))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        return F.linear(input, of_length(self.weight, self.gain), self.bias)


class WeightNormConv(nn.Conv2d):
    """A convolution whose channels' weights have learned lengths."""

    def __init__(self, num_in: int, num_out: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(num_in, num_out, kernel, stride, padding)
        self.gain = nn.Parameter(torch.ones(num_out))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        return self._conv_forward(input, of_length(self.weight, self.gain), self.bias)


WEIGHT_NORMED = (WeightNormLinear, WeightNormConv)


def of_length(direction: Tensor, gain: Tensor) -> Tensor:
    """Directions [..., O, I, …] scaled to the lengths [..., O]; units' weights of length 0 stay 0."""
    scale = gain / lengths(direction, gain.dim()).clamp_min(SMALLEST_LENGTH)
    return direction * scale.view(*scale.shape, *[1] * (direction.dim() - gain.dim()))


def lengths(direction: Tensor, lead: int) -> Tensor:
    """The lengths of units' weights, which lie behind ``lead`` dimensions."""
    return direction.flatten(lead).norm(dim=-1)


@torch.no_grad()
def take_lengths(net: nn.Module) -> None:
    """Let every weight be what its direction alone says, as after the directions were drawn."""
    for module in net.modules():
        if isinstance(module, WEIGHT_NORMED):
            module.gain.copy_(lengths(module.weight, 1))
