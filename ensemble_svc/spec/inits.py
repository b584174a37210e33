"""How initial weights are drawn."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

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


class Lsuv(Choice):
    """Orthogonal weights, scaled on some of the member's training rows until each layer's outputs have variance 1.

    One pass from the first layer to the last (Mishkin & Matas, arXiv:1511.06422).
    """

    name: Literal["lsuv"] = "lsuv"
    tol: Annotated[PositiveFloat, Field(lt=1)] = 0.1
    """How far from 1 a variance may be."""
    iterations: PositiveInt = 10
    """Scalings of a layer at most."""
    rows: Annotated[int, Field(ge=2)] = 256
    """Training rows that are looked at, drawn by the member's seed."""


class Fixup(Choice):
    """For a residual network without norms (arXiv:1901.09321): he, each block's first convolution times 1/√blocks.

    Its last one and the output layer begin at 0. Single learned numbers, a scale and shifts, stand in each block.
    """

    is_structural: ClassVar[bool] = True
    name: Literal["fixup"] = "fixup"


class TorchInit(Choice):
    """As torch draws its layers when they are made."""

    name: Literal["torch"] = "torch"


Init = Annotated[
    He | Xavier | Gaussian | Orthogonal | Lsuv | Fixup | Dirac | Zeros | TorchInit,
    Field(discriminator="name"),
    Shorthand(),
]
INITS: Registry[Choice] = Registry("init", Init)
