"""The ``model`` section: the network of one member."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from ensemble_svc.registry import Choice, Elementwise, Registry, Shorthand
from ensemble_svc.spec.activations import Activation, Maxout, Relu
from ensemble_svc.spec.fields import Factory, Fraction
from ensemble_svc.spec.inits import Fixup, He, Init
from ensemble_svc.spec.norms import BatchNorm, InstanceNorm, NoNorm, Norm, Normalisation


class Architecture(Choice):
    """What the planner must know of a network."""

    packs_unasked: ClassVar[bool] = True
    """Whether its members share packs without the job's word."""


class Network(Architecture):
    """Options that the networks of the zoo share."""

    activation: Activation = Relu()
    """The non-linearity after each hidden layer."""
    norm: Norm = NoNorm()
    """Normalisation of each hidden layer."""
    norm_place: Literal["before", "after"] = "before"
    """Whether the norm stands before the activation, where its layer has no bias, or after it."""
    init: Annotated[Init, Elementwise()] = He()
    """Initial weights; biases begin at 0, but for torch's and those that ``activation`` sets."""
    dropout: Annotated[Fraction, Elementwise()] = 0.0
    """Probability of zeroing a hidden unit in training (Srivastava et al. 2014)."""
    activation_noise: Annotated[NonNegativeFloat, Elementwise()] = 0.0
    """Standard deviation of Gaussian noise added in training after each activation."""

    @property
    def pieces(self) -> int:
        """Linear units of which a hidden unit is made."""
        return self.activation.pieces if isinstance(self.activation, Maxout) else 1

    @property
    def dense_norm(self) -> Normalisation:
        """That of dense layers: their units have one place, over which no instance norm can be taken."""
        return NoNorm() if isinstance(self.norm, InstanceNorm) else self.norm

    def has_bias(self, norm: Normalisation) -> bool:
        """Whether a layer with that norm has a bias: before the norm's own shift it would do nothing.

        Fixup's single numbers stand in place of biases.
        """
        return (not norm.is_layer or self.norm_place == "after") and not isinstance(self.init, Fixup)


class ImageNetwork(Network):
    """Options that the networks of convolutions share."""

    channel_dropout: Annotated[Fraction, Elementwise()] = 0.0
    """Probability of zeroing a whole channel of a convolution in training (Tompson et al. 2015)."""


class Mlp(Network):
    """A multilayer perceptron; images are flattened."""

    name: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[PositiveInt, ...], Field(max_length=1000)] = (128, 128)
    """Units of each hidden layer; an empty list is a linear model."""
    tied: bool = False
    """Let hidden layers that follow one of their own width share their weights with each other."""


class LeNet(ImageNetwork):
    """LeNet-5 with max pooling (LeCun et al. 1998): 5x5 convolutions, then dense layers."""

    name: Literal["lenet"] = "lenet"
    channels: tuple[PositiveInt, PositiveInt] = (6, 16)
    """Channels of the two convolutions."""
    dense: tuple[PositiveInt, ...] = (120, 84)
    """Units of the dense layers before the output."""


class ConvNet(ImageNetwork):
    """VGG-like (arXiv:1409.1556): stages of 3x3 convolutions, each stage halving the image."""

    name: Literal["convnet"] = "convnet"
    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 64, 128)
    """Channels of each stage."""
    convs_per_stage: PositiveInt = 2
    """3x3 convolutions before each pooling."""
    dense: tuple[PositiveInt, ...] = (128,)
    """Units of the dense layers before the output."""
    norm: Norm = BatchNorm()
    """Normalisation of each hidden layer."""


class ResNet(ImageNetwork):
    """The CIFAR residual network (arXiv:1512.03385, section 4.2) with depth 6n+2."""

    name: Literal["resnet"] = "resnet"
    depth: Literal[8, 14, 20, 26, 32, 44, 56, 110] = 20
    """Layers with weights, 6n + 2."""
    width: PositiveInt = 16
    """Channels of the first of the three stages; each later one doubles them."""
    norm: Norm = BatchNorm()
    """Normalisation of each hidden layer."""


class PythonModel(Architecture):
    """Your own network: ``factory(input_shape, num_outputs, **options)`` returns an ``nn.Module``.

    It maps [B, *input_shape] to [B, num_outputs]: logits, or what the loss says.
    """

    packs_unasked: ClassVar[bool] = False
    """Whether it runs under vmap is not known before it is tried."""
    name: Literal["python"] = "python"
    factory: Factory
    """``module:function``, imported from the job's working directory."""
    options: Mapping[str, Any] = {}
    """Keyword arguments for the factory."""


Model = Annotated[Mlp | LeNet | ConvNet | ResNet | PythonModel, Field(discriminator="name"), Shorthand()]
MODELS: Registry[Choice] = Registry("model", Model)
