"""LeNet-5 with max pooling (LeCun et al. 1998): 61,706 weights on 28x28 digits, relu, no norm."""

from __future__ import annotations

from torch import nn

from ensemble_svc.errors import Fault, SpecError
from ensemble_svc.nn.images import image_shape
from ensemble_svc.nn.initial import initialise
from ensemble_svc.nn.layers import ZooNet, conv, dense_stack
from ensemble_svc.spec.model import LeNet

SMALLEST_SIDE = 12
"""Pooled to 6, convolved to 2, pooled to 1."""


def build_lenet(model: LeNet, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Two 5x5 convolutions (the first padded by 2), each pooled, then dense layers.

    The first dense layer takes whatever size the image leaves.

    Raises:
        SpecError: rows that are no images, or images that are too small.
    """
    num_channels, height, width = image_shape(model.name, input_shape)
    if min(height, width) < SMALLEST_SIDE:
        smallest = f"{SMALLEST_SIDE}x{SMALLEST_SIDE}"
        found = f"lenet needs images of {smallest} or more, but these are {height}x{width}."
        raise SpecError([Fault("model.name", f"{found} Use convnet, resnet or mlp.")])
    first, second = model.channels
    sizes = (second * _side(height) * _side(width), *model.dense)
    net, output = ZooNet(), nn.Linear(sizes[-1], num_outputs)
    net.add_module("conv1", conv(num_channels, first, model, kernel=5, padding=2))
    net.add_module("pool1", nn.MaxPool2d(2))
    net.add_module("conv2", conv(first, second, model, kernel=5, padding=0))
    net.add_module("pool2", nn.MaxPool2d(2))
    net.add_module("flatten", nn.Flatten())
    net.add_module("dense", dense_stack(sizes, model))
    net.add_module("output", output)
    initialise(net, output, model)
    return net


def _side(pixels: int) -> int:
    """What is left of a side of ``pixels`` after both convolutions and poolings."""
    return (pixels // 2 - 4) // 2
