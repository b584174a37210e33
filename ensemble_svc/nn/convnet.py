"""A VGG-like network (arXiv:1409.1556)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from ensemble_svc.errors import Fault, SpecError
from ensemble_svc.nn.images import image_shape
from ensemble_svc.nn.initial import initialise
from ensemble_svc.nn.layers import ZooNet, conv, dense_stack
from ensemble_svc.spec.model import ConvNet


def build_convnet(model: ConvNet, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Stages of 3x3 convolutions, each stage halving the image by max pooling, then dense layers.

    Raises:
        SpecError: rows that are no images, or more stages than halvings the image allows.
    """
    num_channels, height, width = image_shape(model.name, input_shape)
    num_stages, most = len(model.channels), min(height, width).bit_length() - 1
    if num_stages > most:
        found = (
            f"{num_stages} stages halve the image {num_stages} times; {height}x{width} allows at most {most}."
        )
        raise SpecError([Fault("model.channels", found)])
    area = (height >> num_stages) * (width >> num_stages)
    sizes = (model.channels[-1] * area, *model.dense)
    net, output = ZooNet(), nn.Linear(sizes[-1], num_outputs)
    net.add_module("stages", nn.Sequential(*_stages(num_channels, model)))
    net.add_module("flatten", nn.Flatten())
    net.add_module("dense", dense_stack(sizes, model))
    net.add_module("output", output)
    initialise(net, output, model)
    return net


def _stages(num_channels: int, model: ConvNet) -> Iterator[nn.Sequential]:
    for width in model.channels:
        inputs = (num_channels, *[width] * (model.convs_per_stage - 1))
        yield nn.Sequential(*(conv(n, width, model, kernel=3, padding=1) for n in inputs), nn.MaxPool2d(2))
        num_channels = width
