"""The networks of the benchmarks in plain torch, and how a job of ours asks for the same ones.

The output layer is made first, as ours does, so that one seed draws the same initial weights.

Shapes: B rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Model:
    """A network twice: built here, and as the ``model`` section of a job."""

    build: Callable[[tuple[int, ...], int], nn.Module]
    """From the shape of one row and the number of classes."""
    section: Mapping[str, Any]


def mlp(shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Two hidden layers of 128 ReLU."""
    output = nn.Linear(128, num_classes)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(shape), 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), output
    )


def lenet(shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """LeNet-5 with ReLU and max pooling: 61,706 weights on 28x28 grey images."""
    channels, height, width = shape
    output = nn.Linear(84, num_classes)
    area = ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
    return nn.Sequential(
        *(nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16 * area, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()),
        output,
    )


def convnet(shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Two stages of one 3x3 convolution with batch norm, 16 and 32 channels, then 64 dense units."""
    channels, height, width = shape
    output = nn.Linear(64, num_classes)
    return nn.Sequential(
        *(nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * (height // 4) * (width // 4), 64, bias=False)),
        *(nn.BatchNorm1d(64), nn.ReLU(), output),
    )


MODELS: Mapping[str, Model] = {
    "mlp": Model(mlp, {"name": "mlp", "hidden": [128, 128], "init": "torch"}),
    "lenet": Model(lenet, {"name": "lenet", "init": "torch"}),
    "convnet": Model(
        convnet,
        {
            "name": "convnet",
            "channels": [16, 32],
            "convs_per_stage": 1,
            "dense": [64],
            "norm": "batch",
            "init": "torch",
        },
    ),
}
