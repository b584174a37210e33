"""The residual network for small images (arXiv:1512.03385, section 4.2), depth 6n + 2.

Shortcuts have no weights (the paper's option A): where the image halves and the channels double,
every second pixel is taken and the new channels are 0. Depth 20 and width 16: 0.27 million weights.
Shapes: B rows, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from ensemble_svc.errors import Fault, SpecError
from ensemble_svc.nn.images import image_shape
from ensemble_svc.nn.initial import initialise
from ensemble_svc.nn.layers import ZooNet, activation, conv, image_norm
from ensemble_svc.nn.noise import ActivationNoise
from ensemble_svc.spec.model import ResNet

NUM_STAGES = 3


class Residual(nn.Module):
    """Two 3x3 convolutions around which the input is led; dropout stands between them (arXiv:1605.07146).

    Args:
        stride: 2 halves the image.
    """

    def __init__(self, num_in: int, num_out: int, network: ResNet, *, stride: int) -> None:
        super().__init__()
        self.stride, self.num_new = stride, num_out - num_in
        self.first = conv(num_in, num_out, network, kernel=3, padding=1, stride=stride)
        self.second = nn.Conv2d(num_out, num_out, 3, padding=1, bias=network.norm == "none")
        self.norm = image_norm(network.norm, num_out)
        self.activation = activation(network.activation, num_out)
        self.noise = ActivationNoise(network.activation_noise)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        branch: Tensor = self.norm(self.second(self.first(x_BCHW)))
        return self.noise(self.activation(self.shortcut(x_BCHW) + branch))

    def shortcut(self, x: Tensor) -> Tensor:
        """What is led around, any dimensions [..., C, H, W]: every ``stride``-th pixel, new channels 0."""
        return F.pad(x[..., :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.num_new))


def build_resnet(model: ResNet, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """A 3x3 convolution, three stages of residual blocks, the mean over the image, a linear layer.

    Raises:
        SpecError: rows that are no images; maxout, since the sum of a block and its input has one piece.
    """
    if model.pieces > 1:
        found = (
            "'maxout' takes the largest of several units, and a residual sum is one; use another activation."
        )
        raise SpecError([Fault("model.activation", found)])
    num_channels, _, _ = image_shape(model.name, input_shape)
    last = model.width * 2 ** (NUM_STAGES - 1)
    net, output = ZooNet(), nn.Linear(last, num_outputs)
    without_dropout = model.model_copy(update={"dropout": 0.0})
    net.add_module("stem", conv(num_channels, model.width, without_dropout, kernel=3, padding=1))
    net.add_module("blocks", nn.Sequential(*_blocks(model)))
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("output", output)
    initialise(net, output, model)
    return net


def _blocks(model: ResNet) -> Iterator[Residual]:
    num_in = model.width
    for stage in range(NUM_STAGES):
        num_out = model.width * 2**stage
        for block in range((model.depth - 2) // (2 * NUM_STAGES)):
            yield Residual(num_in, num_out, model, stride=2 if stage and not block else 1)
            num_in = num_out
