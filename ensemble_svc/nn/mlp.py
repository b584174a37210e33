"""The multilayer perceptron."""

from __future__ import annotations

import math

from torch import nn

from ensemble_svc.nn.initial import initialise
from ensemble_svc.nn.layers import ZooNet, dense_stack
from ensemble_svc.nn.tied import tied_stack
from ensemble_svc.spec.model import Mlp


def build_mlp(model: Mlp, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Dense layers on the flattened input.

    Raises:
        SpecError: a norm over a single unit.
    """
    sizes = (math.prod(input_shape), *model.hidden)
    net, output = ZooNet(), nn.Linear(sizes[-1], num_outputs)
    net.add_module("flatten", nn.Flatten())
    net.add_module("hidden", tied_stack(sizes, model) if model.tied else dense_stack(sizes, model))
    net.add_module("output", output)
    initialise(net, output, model)
    return net
