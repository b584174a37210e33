"""What the networks of the zoo are made of: a layer with its norm, activation, noise and dropout.

The parts of a layer carry names, so a weight is called the same whatever the options are.
A layer before a norm has no bias: its gradient there is pure round-off, which Adam scales into drift.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ensemble_svc.errors import Fault, SpecError
from ensemble_svc.nn.noise import ActivationNoise, Dropout
from ensemble_svc.spec.activations import (
    Activation,
    Elu,
    Gelu,
    LeakyRelu,
    Maxout,
    PRelu,
    Relu,
    Sigmoid,
    Silu,
    Tanh,
)
from ensemble_svc.spec.model import Network, Norm

LARGEST_GROUP_COUNT = 8


class ZooNet(nn.Sequential):
    """A whole network of the zoo, by which it is told from one of the user's own."""


def dense(num_in: int, num_out: int, network: Network) -> nn.Sequential:
    """A linear layer [B, num_in] → [B, num_out]; norm, activation, noise and dropout as ``network`` says."""
    width = num_out * network.pieces
    if width == 1 and network.norm in ("layer", "group"):
        found = f"{network.norm} over a layer of one unit leaves nothing of it."
        raise SpecError([Fault("model.norm", f"{found} Give it 2 units or more, or use norm: batch.")])
    linear = nn.Linear(num_in, width, bias=network.norm == "none")
    return _layer("linear", linear, dense_norm(network.norm, width), num_out, network)


def dense_stack(sizes: Sequence[int], network: Network) -> nn.Sequential:
    """Dense layers from ``sizes[0]`` inputs to ``sizes[-1]`` units; the identity for one size."""
    return nn.Sequential(*(dense(num_in, num_out, network) for num_in, num_out in pairwise(sizes)))


def conv(
    num_in: int, num_out: int, network: Network, *, kernel: int, padding: int, stride: int = 1
) -> nn.Sequential:
    """A convolution over [B, C, H, W]; norm, activation, noise and dropout as ``network`` says.

    Dropout zeroes single numbers, not channels.
    """
    width = num_out * network.pieces
    convolution = nn.Conv2d(num_in, width, kernel, stride, padding, bias=network.norm == "none")
    return _layer("conv", convolution, image_norm(network.norm, width), num_out, network)


def _layer(name: str, weights: nn.Module, norm: nn.Module, num_units: int, network: Network) -> nn.Sequential:
    layer = nn.Sequential()
    layer.add_module(name, weights)
    layer.add_module("norm", norm)
    layer.add_module("activation", activation(network.activation, num_units))
    layer.add_module("noise", ActivationNoise(network.activation_noise))
    layer.add_module("dropout", Dropout(network.dropout))
    return layer


def dense_norm(norm: Norm, num_units: int) -> nn.Module:
    """The normalisation of [B, num_units]."""
    match norm:
        case "none":
            return nn.Identity()
        case "batch":
            return nn.BatchNorm1d(num_units)
        case "layer":
            return nn.LayerNorm(num_units)
        case "group":
            return nn.GroupNorm(num_groups(num_units), num_units)


def image_norm(norm: Norm, num_channels: int) -> nn.Module:
    """The normalisation of [B, num_channels, H, W]; ``layer`` is over channels and places together."""
    match norm:
        case "none":
            return nn.Identity()
        case "batch":
            return nn.BatchNorm2d(num_channels)
        case "layer":
            return nn.GroupNorm(1, num_channels)
        case "group":
            return nn.GroupNorm(num_groups(num_channels), num_channels)


def num_groups(num_channels: int) -> int:
    """Largest divisor up to 8 that leaves each group two channels; a lone unit's norm is always 0."""
    largest = max(1, min(LARGEST_GROUP_COUNT, num_channels // 2))
    return next(n for n in range(largest, 0, -1) if num_channels % n == 0)


class MaxOut(nn.Module):
    """The largest of every ``pieces`` neighbours among the units or channels, [B, C, …] → [B, C / pieces, …]."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.pieces)).max(dim=2).values


def activation(choice: Activation, num_units: int) -> nn.Module:
    """The non-linearity over ``num_units`` units or channels."""
    match choice:
        case Relu():
            return nn.ReLU()
        case Tanh():
            return nn.Tanh()
        case Sigmoid():
            return nn.Sigmoid()
        case LeakyRelu(slope=slope):
            return nn.LeakyReLU(slope)
        case PRelu(slope=slope):
            return nn.PReLU(num_units, slope)
        case Maxout(pieces=pieces):
            return MaxOut(pieces)
        case Elu(alpha=alpha):
            return nn.ELU(alpha)
        case Gelu():
            return nn.GELU()
        case Silu():
            return nn.SiLU()
