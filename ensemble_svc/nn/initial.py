"""Initial weights, drawn from torch's global generator."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn

from ensemble_svc.spec.model import Activation, Network


def initialise(net: nn.Module, output: nn.Linear, network: Network) -> None:
    """Draw every linear and convolutional weight of ``net`` as ``network.init`` says; biases become 0.

    ``torch`` leaves the layers as torch drew them when they were made.

    Args:
        output: the last layer; nothing follows it, so he gives it the gain 1.
    """
    match network.init:
        case "he":
            for layer in _layers(net):
                gain = 1.0 if layer is output else gain_of(network.activation)
                nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
                _clear_bias(layer)
        case "xavier":
            for layer in _layers(net):
                nn.init.xavier_uniform_(layer.weight)
                _clear_bias(layer)
        case "torch":
            pass


def gain_of(activation: Activation) -> float:
    """Factor by which weights make up for what the activation takes from the signal.

    Torch's where it has one (``torch.nn.init.calculate_gain``); else the factor that leads the mean
    square of an activated standard normal back to 1, which for relu gives He's √2.
    """
    match activation:
        case "relu" | "tanh" | "sigmoid" | "leaky_relu":
            return nn.init.calculate_gain(activation)
        case "elu":
            return 1.2452
        case "gelu":
            return 1.5335
        case "silu":
            return 1.6765


def _layers(net: nn.Module) -> Iterator[nn.Linear | nn.Conv2d]:
    return (module for module in net.modules() if isinstance(module, nn.Linear | nn.Conv2d))


def _clear_bias(layer: nn.Linear | nn.Conv2d) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
