"""From the choice of a norm to the module, and to the layer with weights that it stands by."""

from __future__ import annotations

from torch import nn

from ensemble_svc.errors import Fault, SpecError
from ensemble_svc.nn.renorm import BatchRenorm
from ensemble_svc.nn.weightnorm import WeightNormConv, WeightNormLinear
from ensemble_svc.spec import norms
from ensemble_svc.spec.model import Network


def dense_norm(norm: norms.Normalisation, num_units: int) -> nn.Module:
    """The normalisation of [B, num_units].

    Raises:
        SpecError: a norm over a row's units where there is one.
    """
    if num_units == 1 and isinstance(norm, norms.LayerNorm | norms.GroupNorm):
        found = f"{norm.name} over a layer of one unit leaves nothing of it."
        raise SpecError([Fault("model.norm", f"{found} Give it 2 units or more, or use norm: batch.")])
    match norm:
        case norms.BatchNorm(momentum=momentum):
            return nn.BatchNorm1d(num_units, momentum=momentum)
        case norms.LayerNorm():
            return nn.LayerNorm(num_units)
        case _:
            return image_norm(norm, num_units)


def image_norm(norm: norms.Normalisation, num_channels: int) -> nn.Module:
    """The normalisation of [B, num_channels, H, W]; ``layer`` is over channels and places together."""
    match norm:
        case norms.BatchNorm(momentum=momentum):
            return nn.BatchNorm2d(num_channels, momentum=momentum)
        case norms.BatchRenorm():
            return BatchRenorm(num_channels, norm)
        case norms.LayerNorm():
            return nn.GroupNorm(1, num_channels)
        case norms.InstanceNorm():
            return nn.GroupNorm(num_channels, num_channels)
        case norms.GroupNorm(groups=groups):
            return nn.GroupNorm(num_groups(num_channels, groups), num_channels)
        case _:
            return nn.Identity()


def linear(num_in: int, width: int, network: Network) -> nn.Linear:
    """A hidden layer's linear part."""
    if isinstance(network.norm, norms.WeightNorm):
        return WeightNormLinear(num_in, width)
    return nn.Linear(num_in, width, bias=network.has_bias(network.dense_norm))


def convolution(
    num_in: int, width: int, network: Network, *, kernel: int, padding: int, stride: int = 1
) -> nn.Conv2d:
    """A convolution as the norm wants it."""
    if isinstance(network.norm, norms.WeightNorm):
        return WeightNormConv(num_in, width, kernel, stride, padding)
    return nn.Conv2d(num_in, width, kernel, stride, padding, bias=network.has_bias(network.norm))


def num_groups(num_channels: int, most: int) -> int:
    """Largest divisor up to ``most`` that leaves each group two channels; a lone unit's norm is always 0."""
    largest = max(1, min(most, num_channels // 2))
    return next(n for n in range(largest, 0, -1) if num_channels % n == 0)
