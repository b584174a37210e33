"""Layers that share their weights: one layer, applied several times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby, pairwise

from torch import Tensor, nn

from ensemble_svc.nn.layers import dense
from ensemble_svc.spec.model import Network


class Repeated(nn.Module):
    """``layer`` applied ``times`` times; its weights stand in the state once, and their gradient is the uses' sum."""

    def __init__(self, layer: nn.Module, times: int) -> None:
        super().__init__()
        self.layer, self.times = layer, times

    def forward(self, x: Tensor) -> Tensor:
        return self.by(lambda part, x: self.get_submodule(part)(x), x)

    def by(self, through: Callable[[str, Tensor], Tensor], x: Tensor) -> Tensor:
        """The outputs.

        Args:
            through: the outputs of the part of that name.
        """
        for _ in range(self.times):
            x = through("layer", x)
        return x


def tied_stack(sizes: Sequence[int], network: Network) -> nn.Sequential:
    """As ``dense_stack``, but that neighbours among the layers behind the first share weights where all sizes agree."""
    layers: list[nn.Module] = []
    pairs = list(pairwise(sizes))
    layers += [dense(num_in, num_out, network) for num_in, num_out in pairs[:1]]
    for (num_in, num_out), same in groupby(pairs[1:]):
        layer, times = dense(num_in, num_out, network), len(list(same))
        layers.append(layer if times == 1 else Repeated(layer, times))
    return nn.Sequential(*layers)
