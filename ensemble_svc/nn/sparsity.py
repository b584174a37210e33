"""Penalties on what hidden units put out, and how it is seen.

Every activation of the zoo is followed by a ``Tap``, which keeps its input in training where it is asked to.
That is safe since networks of the zoo never run under ``torch.func.vmap`` in training.

Shapes: K members, B rows, U units or channels, places of an image behind them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

SMALLEST_SHARE = 1e-6
"""Mean activations are held this far from 0 and 1, where the divergence is infinite."""


class Tap(nn.Module):
    """Passes its input on; ``kept`` is what passed in training since it was last taken, where ``keeps``."""

    def __init__(self) -> None:
        super().__init__()
        self.keeps = False
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.keeps and self.training:
            self.kept.append(x)
        return x


def listen(net: nn.Module, *, keeps: bool) -> tuple[Tap, ...]:
    """The taps of ``net``, told whether to keep what passes; what they hold is forgotten."""
    taps = tuple(module for module in net.modules() if isinstance(module, Tap))
    for tap in taps:
        tap.keeps, tap.kept = keeps, []
    return taps


def take(taps: Iterable[Tap]) -> list[Tensor]:
    """The activations that were kept, which the taps forget."""
    found = []
    for tap in taps:
        found += tap.kept
        tap.kept = []
    return found


def penalty_K(
    kind: Literal["l1", "kl"],
    activations: Iterable[Tensor],
    target_K: Tensor,
    weight_KB: Tensor | None = None,
) -> Tensor:
    """The penalty of strength 1 on each member's hidden layers.

    ``l1``: the sum over units of the mean magnitude over rows and places. ``kl``: the sum over units of the
    divergence of a coin that falls so with the unit's mean activation from one with the target's.

    Args:
        activations: of each layer, [K, B, U, …].
        target_K: the mean activations wanted, for ``kl``.
        weight_KB: how much each row counts; all alike when absent.
    """
    total_K = torch.zeros_like(target_K)
    for x in activations:
        mean_KU = _mean_over_rows(x.float().abs() if kind == "l1" else x.float(), weight_KB)
        each_KU = mean_KU if kind == "l1" else divergence(target_K.unsqueeze(1), mean_KU)
        total_K = total_K + each_KU.sum(1)
    return total_K


def _mean_over_rows(x: Tensor, weight_KB: Tensor | None) -> Tensor:
    x_KBU = x.flatten(3).mean(3) if x.dim() > 3 else x
    if weight_KB is None:
        return x_KBU.mean(1)
    share_KB = weight_KB / weight_KB.sum(1, keepdim=True).clamp_min(SMALLEST_SHARE)
    return (x_KBU * share_KB.unsqueeze(2)).sum(1)


def divergence(target: Tensor, mean: Tensor) -> Tensor:
    """Kullback and Leibler's, of a coin of probability ``mean`` from one of ``target``."""
    mean = mean.clamp(SMALLEST_SHARE, 1 - SMALLEST_SHARE)
    return target * (target / mean).log() + (1 - target) * ((1 - target) / (1 - mean)).log()
