"""What the networks of the zoo are made of: a layer with its norm, activation, noise and dropout.

The parts of a layer carry names, so a weight is called the same whatever the options are.
A layer before a norm has no bias: its gradient there is pure round-off, which Adam scales into drift.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

from torch import Tensor, nn

from ensemble_svc.nn.initial import first_bias
from ensemble_svc.nn.noise import ActivationNoise, ChannelDropout, Dropout
from ensemble_svc.nn.norms import convolution, dense_norm, image_norm, linear
from ensemble_svc.nn.scalars import Shift
from ensemble_svc.nn.sparsity import Tap
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
from ensemble_svc.spec.inits import Fixup
from ensemble_svc.spec.model import ImageNetwork, Network


class ZooNet(nn.Sequential):
    """A whole network of the zoo, by which it is told from one of the user's own."""


def dense(num_in: int, num_out: int, network: Network) -> nn.Sequential:
    """A linear layer [B, num_in] → [B, num_out]; norm, activation, noise and dropout as ``network`` says."""
    norm = dense_norm(network.dense_norm, num_normed(num_out, network))
    return _layer("linear", linear(num_in, num_out * network.pieces, network), norm, num_out, network)


def dense_stack(sizes: Sequence[int], network: Network) -> nn.Sequential:
    """Dense layers from ``sizes[0]`` inputs to ``sizes[-1]`` units; the identity for one size."""
    return nn.Sequential(*(dense(num_in, num_out, network) for num_in, num_out in pairwise(sizes)))


def conv(
    num_in: int, num_out: int, network: ImageNetwork, *, kernel: int, padding: int, stride: int = 1
) -> nn.Sequential:
    """A convolution over [B, C, H, W]; norm, activation, noise and dropout as ``network`` says.

    ``dropout`` zeroes single numbers, ``channel_dropout`` channels.
    """
    width = num_out * network.pieces
    weights = convolution(num_in, width, network, kernel=kernel, padding=padding, stride=stride)
    norm = image_norm(network.norm, num_normed(num_out, network))
    if isinstance(network.init, Fixup):
        norm = Shift(first_bias(network.activation))
    drops = {"channel_dropout": ChannelDropout(network.channel_dropout)}
    return _layer("conv", weights, norm, num_out, network, drops)


def num_normed(num_out: int, network: Network) -> int:
    """Units that the norm sees: before maxout all of its pieces."""
    return num_out * (network.pieces if network.norm_place == "before" else 1)


def _layer(
    name: str,
    weights: nn.Module,
    norm: nn.Module,
    num_units: int,
    network: Network,
    drops: Mapping[str, nn.Module] = MappingProxyType({}),
) -> nn.Sequential:
    normed = [("norm", norm), ("activation", activation(network.activation, num_units))]
    if network.norm_place == "after":
        normed.reverse()
    normed.insert(1 + [part for part, _ in normed].index("activation"), ("tap", Tap()))
    parts = {name: weights, **dict(normed), "noise": ActivationNoise(network.activation_noise), **drops}
    return nn.Sequential(OrderedDict(parts, dropout=Dropout(network.dropout)))


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
