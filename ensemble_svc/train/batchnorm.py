"""Batch-norm statistics estimated anew: of averaged weights (Izmailov et al. 2018, section 3.2), or where asked.

An average of weights is a network that never saw a batch: the running statistics it inherits are
those of other weights.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ensemble_svc.nn.packed import goes_in_turn
from ensemble_svc.nn.renorm import BatchRenorm
from ensemble_svc.train.assemble import Stack

BatchNorm = nn.modules.batchnorm._BatchNorm


def statistics(net: nn.Module) -> list[str]:
    """Names of the running statistics that ``refresh`` estimates."""
    norms = [(n, m) for n, m in net.named_modules() if isinstance(m, BatchNorm) and m.track_running_stats]
    return [f"{name}.{buffer}" if name else buffer for name, norm in norms for buffer in norm._buffers]


def refresh(net: nn.Module, weights_K: Stack, batches_KB: Iterable[Tensor]) -> None:
    """Re-estimate, in place, the running statistics in ``weights_K`` of K stacked networks.

    Each statistic becomes the mean over the batches, every batch counting alike; all other layers
    are in evaluation mode; ``num_batches_tracked`` counts these batches alone. Networks without batch
    norm are left as they are.

    Args:
        batches_KB: inputs [K, B, …] that cover each member's own training rows.
    """
    norms = [m for m in net.modules() if isinstance(m, BatchNorm) and m.track_running_stats]
    if not norms:
        return
    net.eval()
    momenta = [norm.momentum for norm in norms]
    _lead_back(norms, False)
    for norm in norms:
        norm.train()

    def call(weights: Stack, x_B: Tensor) -> Tensor:
        return functional_call(net, weights, (x_B,))  # type: ignore[no-any-return]

    for name, value in weights_K.items():
        if name.endswith("num_batches_tracked"):
            value.zero_()

    def in_turn(weights_K: Stack, x_KB: Tensor) -> None:
        for k, x_B in enumerate(x_KB):
            call({name: weight[k] for name, weight in weights_K.items()}, x_B)

    device = next(iter(weights_K.values())).device
    every = in_turn if goes_in_turn(net, device) else vmap(call, randomness="error")
    for number, x_KB in enumerate(batches_KB, 1):
        for norm in norms:
            norm.momentum = 1.0 / number
        with torch.no_grad():
            every(weights_K, x_KB)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    _lead_back(norms, True)
    net.eval()


def _lead_back(norms: Iterable[nn.Module], leads_back: bool) -> None:
    """Batch renorms are batch norms while the averages that they would lead back to are in the making."""
    for norm in norms:
        if isinstance(norm, BatchRenorm):
            norm.leads_back = leads_back
