"""The residual network for small images (arXiv:1512.03385, section 4.2), depth 6n + 2.

Shortcuts have no weights (the paper's option A): where the image halves and the channels double,
every second pixel is taken and the new channels are 0. Depth 20 and width 16: 0.27 million weights.
Shapes: B rows, C channels, H x W pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ensemble_svc.errors import Fault, SpecError
from ensemble_svc.nn.images import image_shape
from ensemble_svc.nn.initial import initialise
from ensemble_svc.nn.layers import ZooNet, activation, conv
from ensemble_svc.nn.noise import ActivationNoise
from ensemble_svc.nn.norms import convolution, image_norm
from ensemble_svc.nn.scalars import Scale, Shift
from ensemble_svc.nn.sparsity import Tap
from ensemble_svc.spec.inits import Fixup
from ensemble_svc.spec.model import ResNet
from ensemble_svc.spec.norms import InstanceNorm

NUM_STAGES = 3


class Residual(nn.Module):
    """Two 3x3 convolutions around which the input is led; dropout stands between them (arXiv:1605.07146).

    A norm before the activation is that of each convolution; one after it, of the first one's and of the sum's.

    Args:
        stride: 2 halves the image.
    """

    def __init__(self, num_in: int, num_out: int, network: ResNet, *, stride: int) -> None:
        super().__init__()
        self.stride, self.num_new = stride, num_out - num_in
        self.first = conv(num_in, num_out, network, kernel=3, padding=1, stride=stride)
        self.second = convolution(num_out, num_out, network, kernel=3, padding=1)
        self.norm, self.norm_place = image_norm(network.norm, num_out), network.norm_place
        self.enter: nn.Module = nn.Identity()
        self.middle: nn.Module = nn.Identity()
        if isinstance(network.init, Fixup):
            self.enter, self.middle = Shift(), Shift()
            self.norm = nn.Sequential(OrderedDict(scale=Scale(), shift=Shift()))
        self.activation = activation(network.activation, num_out)
        self.tap = Tap()
        self.noise = ActivationNoise(network.activation_noise)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.by(lambda part, x: self.get_submodule(part)(x), x_BCHW)

    def by(self, through: Callable[[str, Tensor], Tensor], x: Tensor) -> Tensor:
        """The block's outputs.

        Args:
            through: the outputs of the part of that name.
        """
        branch = x
        for part in ("enter", "first", "middle", "second"):
            branch = through(part, branch)
        if self.norm_place == "before":
            branch = through("norm", branch)
        joined = through("tap", through("activation", self.shortcut(x) + branch))
        if self.norm_place == "after":
            joined = through("norm", joined)
        return through("noise", joined)

    def shortcut(self, x: Tensor) -> Tensor:
        """What is led around, any dimensions [..., C, H, W]: every ``stride``-th pixel, new channels 0."""
        return F.pad(x[..., :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.num_new))


def build_resnet(model: ResNet, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """A 3x3 convolution, three stages of residual blocks, the mean over the image, a linear layer.

    Raises:
        SpecError: rows that are no images; an instance norm where they shrink to one place.
    """
    num_channels, height, width = image_shape(model.name, input_shape)
    if isinstance(model.norm, InstanceNorm) and max(height, width) <= 2 ** (NUM_STAGES - 1):
        found = f"images of {height}x{width} shrink to one place, over which instance norm leaves nothing."
        raise SpecError([Fault("model.norm", f"{found} Use batch, layer or group.")])
    last = model.width * 2 ** (NUM_STAGES - 1)
    net, output = ZooNet(), nn.Linear(last, num_outputs)
    without_dropout = model.model_copy(update={"dropout": 0.0, "channel_dropout": 0.0})
    net.add_module("stem", conv(num_channels, model.width, without_dropout, kernel=3, padding=1))
    net.add_module("blocks", nn.Sequential(*_blocks(model)))
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    if isinstance(model.init, Fixup):
        net.add_module("shift", Shift())
    net.add_module("output", output)
    initialise(net, output, model)
    if isinstance(model.init, Fixup):
        _fix_up(net)
    return net


@torch.no_grad()
def _fix_up(net: ZooNet) -> None:
    """Make the update of the whole as large as that of one block: L blocks of m = 2 layers, L^(-1 / (2m - 2))."""
    blocks = [module for module in net.modules() if isinstance(module, Residual)]
    for block in blocks:
        block.first.get_parameter("conv.weight").mul_(len(blocks) ** -0.5)
        block.second.weight.zero_()
    net.get_parameter("output.weight").zero_()


def _blocks(model: ResNet) -> Iterator[Residual]:
    num_in = model.width
    for stage in range(NUM_STAGES):
        num_out = model.width * 2**stage
        for block in range((model.depth - 2) // (2 * NUM_STAGES)):
            yield Residual(num_in, num_out, model, stride=2 if stage and not block else 1)
            num_in = num_out
