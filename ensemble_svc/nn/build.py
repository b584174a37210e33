"""From the choice of a network to the network."""

from __future__ import annotations

from torch import nn

from ensemble_svc.errors import Fault, SpecError
from ensemble_svc.nn.convnet import build_convnet
from ensemble_svc.nn.factory import build_python
from ensemble_svc.nn.lenet import build_lenet
from ensemble_svc.nn.mlp import build_mlp
from ensemble_svc.nn.resnet import build_resnet
from ensemble_svc.spec.fitness import unfit
from ensemble_svc.spec.model import ConvNet, LeNet, Mlp, Model, Network, PythonModel, ResNet


def build(model: Model, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """A network that maps [B, *input_shape] to [B, num_outputs].

    The initial weights are drawn from torch's global generator, which the caller seeds.

    Raises:
        SpecError: a network that the input does not fit, options that do not go together, or a factory
            that cannot be used.
    """
    if isinstance(model, Network) and (found := list(unfit(model))):
        raise SpecError([Fault(f"model.{key}", f"{words}.") for key, words in found])
    match model:
        case Mlp():
            return build_mlp(model, input_shape, num_outputs)
        case LeNet():
            return build_lenet(model, input_shape, num_outputs)
        case ConvNet():
            return build_convnet(model, input_shape, num_outputs)
        case ResNet():
            return build_resnet(model, input_shape, num_outputs)
        case PythonModel():
            return build_python(model, input_shape, num_outputs)
