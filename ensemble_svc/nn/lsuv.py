"""Layer-sequential unit variance (Mishkin & Matas, arXiv:1511.06422): weights scaled on real rows.

The orthogonal draw is made with the other initial weights (``nn/initial.py``). Then one pass of some rows goes
through the network, and each layer's weights are divided by the deviation of its outputs, over all rows, units
and places, before the next layer sees them.

Shapes: B rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ensemble_svc.errors import Fault, SpecError
from ensemble_svc.nn.weightnorm import WeightNormConv, WeightNormLinear
from ensemble_svc.spec.inits import Lsuv

BatchNorm = nn.modules.batchnorm._BatchNorm


@torch.no_grad()
def to_unit_variance(net: nn.Module, x_B: Tensor, choice: Lsuv) -> None:
    """Scale the weights of ``net`` in place until every layer's outputs on ``x_B`` have variance 1.

    Nothing is dropped or drawn; batch norms see the rows as one batch and forget them again.

    Raises:
        SpecError: a layer whose outputs are all alike, for which there is no scale.
    """
    layers = [(name, m) for name, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(_scaling(name, choice)) for name, layer in layers]
    try:
        with _as_in_training(net):
            net(x_B)
    finally:
        for hook in hooks:
            hook.remove()


def _scaling(name: str, choice: Lsuv):  # type: ignore[no-untyped-def]
    def scale(layer: nn.Linear | nn.Conv2d, inputs: tuple[Tensor], out: Tensor) -> Tensor:
        for _ in range(choice.iterations):
            variance = out.var(correction=0)
            if not (variance > 0 and variance.isfinite()):
                _refuse(name, float(variance))
            if (variance - 1).abs() < choice.tol:
                break
            length = layer.gain if isinstance(layer, WeightNormLinear | WeightNormConv) else layer.weight
            length.div_(variance.sqrt())
            out = layer.forward(*inputs)
        return out

    return scale


def _refuse(name: str, variance: float) -> None:
    found = (
        f"'lsuv' divides weights by the spread of their outputs, and on the member's rows that of {name} is"
    )
    raise SpecError(
        [Fault("model.init", f"{found} {variance:g}. Use he or orthogonal, or standardize the data.")]
    )


@contextmanager
def _as_in_training(net: nn.Module) -> Iterator[None]:
    """Batch norms in training and all else in evaluation; the modes and running averages are led back."""
    modes = {module: module.training for module in net.modules()}
    norms = [module for module in net.modules() if isinstance(module, BatchNorm)]
    before = [[buffer.clone() for buffer in norm.buffers()] for norm in norms]
    net.eval()
    for norm in norms:
        norm.train()
    try:
        yield
    finally:
        for norm, kept in zip(norms, before, strict=True):
            for buffer, value in zip(norm.buffers(), kept, strict=True):
                buffer.copy_(value)
        for module, mode in modes.items():
            module.training = mode
