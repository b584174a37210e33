"""What K members' layers do at one moment of their training: a few numbers for each.

Shapes: K members, B rows, U units or channels, L layers, places of an image behind them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from ensemble_svc.nn.layers import MaxOut
from ensemble_svc.vitals.watching import ACTIVATIONS, SATURATED, Weighted

Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class Spot:
    """A layer with weights, and the activation that follows it in the network."""

    name: str
    layer: Weighted
    activation: nn.Module | None = None

    @property
    def weight(self) -> str:
        """The name of its weights."""
        return f"{self.name}.weight" if self.name else "weight"

    @property
    def num_weights(self) -> int:
        """How many they are."""
        return self.layer.weight.numel()

    @property
    def kind(self) -> str:
        """Its activation's class in torch, in small letters; empty where none follows."""
        return type(self.activation).__name__.lower() if self.activation is not None else ""


@dataclass(frozen=True)
class Sample:
    """One member's layers at the end of an epoch; each field but the epoch has a number per layer.

    None stands where there is nothing to say: no activation, one that never saturates, a number that is
    not finite.
    """

    epoch: int
    mean: Numbers
    """Of the activation's outputs, over rows, units and places."""
    std: Numbers
    saturated: Numbers
    """Share of outputs where the activation is flat."""
    dead: Numbers
    """Share of units that no row brings above 0, of a relu."""
    gradient: Numbers
    """Norm of the loss's gradient by the layer's weights."""
    weight: Numbers
    """Norm of the weights."""
    update: Numbers
    """Size of the epoch's last step over that of the weights."""
    alike: Numbers
    """1 where all units have the same weights, else 0."""

    @classmethod
    def of(cls, epoch: int, values_QL: Sequence[Sequence[float]]) -> Self:
        """From the quantities in the order of the fields, rounded to four digits."""
        return cls(epoch, *(tuple(map(_rounded, values_L)) for values_L in values_QL))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Inverse of ``to_json``."""
        lists = {field.name: tuple(row[field.name]) for field in fields(cls) if field.name != "epoch"}
        return cls(epoch=row["epoch"], **lists)


def spots_of(net: nn.Module) -> list[Spot]:
    """The layers in the order in which the network names them, which for the zoo is that of the pass."""
    found: list[Spot] = []
    for name, module in net.named_modules():
        if isinstance(module, Weighted):
            found.append(Spot(name, module))
        elif isinstance(module, ACTIVATIONS) and found and found[-1].activation is None:
            found[-1] = Spot(found[-1].name, found[-1].layer, module)
    return found


@contextmanager
def listening(spots: Sequence[Spot], stacked: int | None) -> Iterator[dict[int, Tensor]]:
    """While the block lasts, statistics [K, 4] of each layer's activation by the layer's position.

    Args:
        stacked: K where the network is written out for K members at once, outputs [K, B, U, …]; None where
            it is called for one, outputs [B, U, …].
    """
    heard: dict[int, Tensor] = {}
    handles = []
    for position, spot in enumerate(spots):
        if spot.activation is not None:
            handles.append(spot.activation.register_forward_hook(_hearer(heard, position, stacked)))
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _hearer(heard: dict[int, Tensor], position: int, stacked: int | None):  # type: ignore[no-untyped-def]
    def hear(module: nn.Module, _: object, out: Tensor) -> None:
        if stacked is None:
            out = out.unsqueeze(0)
        elif isinstance(module, MaxOut):  # which sees the rows of all members as one batch
            out = out.unflatten(0, (stacked, -1))
        heard[position] = seen(module, out.detach())

    return hear


def seen(module: nn.Module, out_KBU: Tensor) -> Tensor:
    """Mean, standard deviation, saturated and dead share [K, 4] of an activation's outputs [K, B, U, …].

    As ``watching.activity`` has them, in float32; NaN for a share that the activation does not have.
    """
    flat = out_KBU.float().flatten(1)
    nothing = flat.new_full((len(flat),), math.nan)
    bounds = SATURATED.get(type(module))
    saturated = ((flat < bounds[0]) | (flat > bounds[1])).float().mean(1) if bounds else nothing
    dead = nothing
    if isinstance(module, nn.ReLU) and out_KBU.dim() > 2:
        most_KU = out_KBU.amax((1, *range(3, out_KBU.dim())))
        dead = (most_KU <= 0).float().mean(1)
    variance, mean = torch.var_mean(flat, 1, correction=0)
    return torch.stack([mean, variance.sqrt(), saturated, dead], 1)


def alike(weight_K: Tensor) -> Tensor:
    """Whether all units of each member's layer have the same weights, [K]."""
    if weight_K.shape[1] < 2:
        return weight_K.new_zeros(len(weight_K))
    return (weight_K == weight_K[:, :1]).flatten(1).all(1).float()


def _rounded(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
