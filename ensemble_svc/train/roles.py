"""What the optimiser is told of a member's network: its hidden weights, and its layers' rates."""

from __future__ import annotations

from typing import Final

from torch import nn

from ensemble_svc.nn.regularize import penalised
from ensemble_svc.optim.layers import Layers, layers_of
from ensemble_svc.spec.training import LayerRates, TrainingSpec

POWERS: Final[dict[LayerRates, float]] = {"same": 0.0, "fan_in": 1.0, "sqrt_fan_in": 0.5}
"""With which power of its fan-in a layer's rate falls."""


def roles(net: nn.Module, training: TrainingSpec) -> Layers:
    """The roles of the parameters of a network, or of a part of one.

    Its layers are the linear ones and the convolutions, in the module's order.
    """
    weights = {name: net.get_parameter(name)[0].numel() for name in penalised(net)}
    return layers_of(weights, POWERS[training.layer_rates])
