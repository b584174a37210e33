"""How initial weights are drawn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from ensemble_svc.registry import Choice, Registry, Shorthand


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
