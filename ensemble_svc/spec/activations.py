"""The non-linearities after hidden layers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from ensemble_svc.registry import Choice, Registry, Shorthand


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
