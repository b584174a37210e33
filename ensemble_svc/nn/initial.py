"""Initial weights, drawn from torch's global generator."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn

from ensemble_svc.nn.weightnorm import take_lengths
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
from ensemble_svc.spec.inits import (
    Dirac,
    Fixup,
    Gaussian,
    He,
    Init,
    Lsuv,
    Orthogonal,
    TorchInit,
    Xavier,
    Zeros,
)
from ensemble_svc.spec.model import Network

Layer = nn.Linear | nn.Conv2d


def initialise(net: nn.Module, output: nn.Linear, network: Network) -> None:
    """Draw every linear and convolutional weight of ``net`` as ``network.init`` says; biases become 0.

    ``torch`` leaves the layers as torch drew them when they were made.

    Args:
        output: the last layer; nothing follows it, so he gives it the gain 1.
    """
    for layer in () if isinstance(network.init, TorchInit) else _layers(net):
        gain = 1.0 if layer is output else gain_of(network.activation)
        _draw(layer, network.init, gain)
        if layer.bias is not None:
            nn.init.constant_(layer.bias, 0.0 if layer is output else first_bias(network.activation))
    take_lengths(net)


def first_bias(activation: Activation) -> float:
    """What hidden layers' biases begin at."""
    return activation.bias if isinstance(activation, Relu) else 0.0


def _draw(layer: Layer, init: Init, gain: float) -> None:
    weight = layer.weight
    fan_in = weight[0].numel()
    match init:
        case He(fan=fan):
            count = fan_in if fan == "in" else len(weight) * weight[0, 0].numel()
            nn.init.normal_(weight, std=gain / math.sqrt(count))
        case Fixup():
            nn.init.normal_(weight, std=gain / math.sqrt(fan_in))
        case Lsuv():
            nn.init.orthogonal_(weight)
        case Xavier(distribution="uniform"):
            nn.init.xavier_uniform_(weight)
        case Xavier():
            nn.init.xavier_normal_(weight)
        case Gaussian(std=std):
            nn.init.normal_(weight, std=std)
        case Orthogonal():
            nn.init.orthogonal_(weight, gain)
        case Dirac() if isinstance(layer, nn.Conv2d):
            nn.init.dirac_(weight)
        case Dirac():
            nn.init.normal_(weight, std=gain / math.sqrt(fan_in))
        case Zeros():
            nn.init.zeros_(weight)
        case TorchInit():
            pass


def gain_of(activation: Activation) -> float:
    """Factor by which weights make up for what the activation takes from the signal.

    For tanh and sigmoid torch's (``torch.nn.init.calculate_gain``); for the others the factor that
    leads the mean square of an activated standard normal back to 1, which for relu gives He's √2.
    """
    match activation:
        case Tanh() | Sigmoid():
            return nn.init.calculate_gain(activation.name)
        case Relu():
            return math.sqrt(2)
        case LeakyRelu(slope=slope) | PRelu(slope=slope):
            return math.sqrt(2 / (1 + slope**2))
        case Elu(alpha=alpha):
            below = math.exp(2) * _normal(-2) - 2 * math.exp(0.5) * _normal(-1) + 0.5
            return 1 / math.sqrt(0.5 + alpha**2 * below)
        case Maxout(pieces=pieces):
            return 1 / math.sqrt(_mean_square_of_largest(pieces))
        case Gelu():
            return 1.5335
        case Silu():
            return 1.6765


def _normal(z: float) -> float:
    """Probability that a standard normal number is less than ``z``."""
    return (1 + math.erf(z / math.sqrt(2))) / 2


def _mean_square_of_largest(count: int) -> float:
    """Of ``count`` standard normal numbers, by the trapezoid rule."""
    step = 0.01
    points = (i * step for i in range(-1000, 1001))
    density = (
        z * z * count * _normal(z) ** (count - 1) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        for z in points
    )
    return step * sum(density)


def _layers(net: nn.Module) -> Iterator[Layer]:
    return (module for module in net.modules() if isinstance(module, nn.Linear | nn.Conv2d))
