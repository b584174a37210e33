"""One pass of real rows through a network, with every layer's outputs and gradients noted.

Shapes: B rows, U units or channels, places of an image behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ensemble_svc.nn.layers import MaxOut

Weighted = nn.Linear | nn.modules.conv._ConvNd
ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, MaxOut)
SATURATED = {nn.Tanh: (-0.97, 0.97), nn.Sigmoid: (0.015, 0.985)}
"""Outputs outside of these lie where the activation is flat: |tanh z| > 0.97, and the same z for a sigmoid's tails."""
NUM_BINS = 12


@dataclass(frozen=True)
class Activity:
    """What an activation put out on some rows."""

    kind: str
    """Its class in torch, in small letters."""
    mean: float
    std: float
    """Over all rows, units and places."""
    edges: tuple[float, float]
    """Ends of the histogram."""
    histogram: tuple[int, ...]
    """Outputs in so many equal bins between them."""
    saturated: float | None
    """Share of outputs where the activation is flat; None where it never is, or on one side alone."""
    dead: float | None
    """Share of units that are 0 on every row, of a relu; None for other activations."""


@dataclass
class Layer:
    """A layer with weights, and the activation that follows it."""

    name: str
    module: Weighted
    activity: Activity | None = None
    gradient: float = 0.0
    """Norm of the loss's gradient by the weights."""
    weight: float = 0.0
    """Norm of the weights."""
    update: float = 0.0
    """Norm of the first step over that of the weights; infinite where they are 0 and move."""
    alike: bool = False
    """Whether all its units have the same weights, so that they always will."""


@contextmanager
def noted(net: nn.Module) -> Iterator[list[Layer]]:
    """The layers of a network in the order in which the block's (only) forward pass goes through them."""
    found, handles = list[Layer](), []
    for name, module in net.named_modules():
        if isinstance(module, Weighted):
            handles.append(module.register_forward_hook(_entering(found, name)))
        elif isinstance(module, ACTIVATIONS):
            handles.append(module.register_forward_hook(_leaving(found)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _entering(found: list[Layer], name: str):  # type: ignore[no-untyped-def]
    def note(module: Weighted, _: object, __: Tensor) -> None:
        found.append(Layer(name, module, alike=_alike(module)))

    return note


def _leaving(found: list[Layer]):  # type: ignore[no-untyped-def]
    def note(module: nn.Module, _: object, out: Tensor) -> None:
        if found:
            found[-1].activity = activity(module, out.detach())

    return note


def activity(module: nn.Module, out_BU: Tensor) -> Activity:
    """Statistics of an activation's outputs [B, U, …]."""
    values = out_BU.double()
    finite = values[values.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    counts = torch.histc(finite.float(), NUM_BINS, low, high) if low < high else torch.zeros(NUM_BINS)
    return Activity(
        kind=type(module).__name__.lower(),
        mean=float(values.mean()),
        std=float(values.std(correction=0)),
        edges=(low, high),
        histogram=tuple(int(count) for count in counts),
        saturated=_saturated(module, out_BU),
        dead=_dead(values) if isinstance(module, nn.ReLU) else None,
    )


def _saturated(module: nn.Module, out_BU: Tensor) -> float | None:
    bounds = SATURATED.get(type(module))
    if bounds is None:
        return None
    return float(((out_BU < bounds[0]) | (out_BU > bounds[1])).double().mean())


def _dead(values_BU: Tensor) -> float:
    """Share of units that no row, at no place, brings above 0."""
    by_unit = values_BU.movedim(1, 0).flatten(1)
    return float((by_unit <= 0).all(1).double().mean())


def _alike(module: Weighted) -> bool:
    rows = module.weight.detach().flatten(1)
    return len(rows) > 1 and bool((rows == rows[:1]).all())
