"""The ``model`` section: the network of one member."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from ensemble_svc.registry import Choice, Elementwise, Registry, Shorthand
from ensemble_svc.spec.fields import Factory, Fraction

Norm = Literal["none", "batch", "layer", "group"]


class Relu(Choice):
    """max(0, z) (Nair & Hinton 2010)."""

    name: Literal["relu"] = "relu"
    bias: NonNegativeFloat = 0.0
    """What hidden layers' biases begin at; a little above 0 (0.01) lets every unit begin alive."""


class Tanh(Choice):
    """The hyperbolic tangent."""

    name: Literal["tanh"] = "tanh"


class Sigmoid(Choice):
    """1 / (1 + exp(-z)), whose outputs are all positive."""

    name: Literal["sigmoid"] = "sigmoid"


class LeakyRelu(Choice):
    """z above 0 and ``slope`` times z below (Maas et al. 2013)."""

    name: Literal["leaky_relu"] = "leaky_relu"
    slope: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """What is left below 0."""


class PRelu(Choice):
    """As leaky_relu, with a slope for each unit or channel that is learned (arXiv:1502.01852)."""

    name: Literal["prelu"] = "prelu"
    slope: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """What the slopes begin at."""


class Maxout(Choice):
    """The largest of ``pieces`` linear units (arXiv:1302.4389); a layer has that many times the weights."""

    name: Literal["maxout"] = "maxout"
    pieces: Annotated[int, Field(ge=2)] = 2
    """Linear units of which each hidden unit takes the largest."""


class Elu(Choice):
    """z above 0 and alpha (exp(z) - 1) below (arXiv:1511.07289)."""

    name: Literal["elu"] = "elu"
    alpha: PositiveFloat = 1.0
    """Minus the value that is approached far below 0."""


class Gelu(Choice):
    """z times the normal distribution's probability of less than z (arXiv:1606.08415)."""

    name: Literal["gelu"] = "gelu"


class Silu(Choice):
    """z times its sigmoid (arXiv:1606.08415)."""

    name: Literal["silu"] = "silu"


Activation = Annotated[
    Relu | Tanh | Sigmoid | LeakyRelu | PRelu | Maxout | Elu | Gelu | Silu,
    Field(discriminator="name"),
    Shorthand(),
]
ACTIVATIONS: Registry[Choice] = Registry("activation", Activation)


class He(Choice):
    """Normal weights that keep the size of the signal under the network's activation (arXiv:1502.01852)."""

    name: Literal["he"] = "he"
    fan: Literal["in", "out"] = "in"
    """Keep the signal's size on the way forward (in), or the gradient's on the way back (out)."""


class Xavier(Choice):
    """Weights with the variance 2 / (inputs + outputs) (Glorot & Bengio 2010)."""

    name: Literal["xavier"] = "xavier"
    distribution: Literal["uniform", "normal"] = "uniform"
    """What they are drawn from."""


class Gaussian(Choice):
    """Normal weights of one standard deviation in every layer, however wide it is."""

    name: Literal["gaussian"] = "gaussian"
    std: PositiveFloat = 0.01
    """Standard deviation."""


class Orthogonal(Choice):
    """Weights whose rows, or columns, are orthogonal, times the activation's gain (arXiv:1312.6120)."""

    name: Literal["orthogonal"] = "orthogonal"


class Dirac(Choice):
    """Convolutions that pass their input on (arXiv:1706.00388); dense layers as he draws them."""

    name: Literal["dirac"] = "dirac"


class Zeros(Choice):
    """All weights 0: the units of a layer stay alike for ever. For showing that, not for use."""

    name: Literal["zeros"] = "zeros"


class TorchInit(Choice):
    """As torch draws its layers when they are made."""

    name: Literal["torch"] = "torch"


Init = Annotated[
    He | Xavier | Gaussian | Orthogonal | Dirac | Zeros | TorchInit, Field(discriminator="name"), Shorthand()
]
INITS: Registry[Choice] = Registry("init", Init)


class Architecture(Choice):
    """What the planner must know of a network."""

    packs_unasked: ClassVar[bool] = True
    """Whether its members share packs without the job's word."""


class Network(Architecture):
    """Options that the networks of the zoo share."""

    activation: Activation = Relu()
    """The non-linearity after each hidden layer."""
    norm: Norm = "none"
    """Normalisation before the activation; a layer followed by one has no bias."""
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


class Mlp(Network):
    """A multilayer perceptron; images are flattened."""

    name: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[PositiveInt, ...], Field(max_length=1000)] = (128, 128)
    """Units of each hidden layer; an empty list is a linear model."""


class LeNet(Network):
    """LeNet-5 with max pooling (LeCun et al. 1998): 5x5 convolutions, then dense layers."""

    name: Literal["lenet"] = "lenet"
    channels: tuple[PositiveInt, PositiveInt] = (6, 16)
    """Channels of the two convolutions."""
    dense: tuple[PositiveInt, ...] = (120, 84)
    """Units of the dense layers before the output."""


class ConvNet(Network):
    """VGG-like (arXiv:1409.1556): stages of 3x3 convolutions, each stage halving the image."""

    name: Literal["convnet"] = "convnet"
    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 64, 128)
    """Channels of each stage."""
    convs_per_stage: PositiveInt = 2
    """3x3 convolutions before each pooling."""
    dense: tuple[PositiveInt, ...] = (128,)
    """Units of the dense layers before the output."""
    norm: Norm = "batch"
    """Normalisation before the activation; a layer followed by one has no bias."""


class ResNet(Network):
    """The CIFAR residual network (arXiv:1512.03385, section 4.2) with depth 6n+2."""

    name: Literal["resnet"] = "resnet"
    depth: Literal[8, 14, 20, 26, 32, 44, 56, 110] = 20
    """Layers with weights, 6n + 2."""
    width: PositiveInt = 16
    """Channels of the first of the three stages; each later one doubles them."""
    norm: Norm = "batch"
    """Normalisation before the activation; a layer followed by one has no bias."""


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
