"""What says which values each trial of a search has."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from ensemble_svc.registry import Choice, Registry, Shorthand

MOST_MEMBERS: Final = 100_000


class Asker(Choice):
    """What says which values a trial has."""

    learns: ClassVar[bool] = False
    """Whether it asks for the results of earlier trials."""


class Random(Asker):
    """Each trial on its own, by the laws of the space (Bergstra & Bengio 2012)."""

    name: Literal["random"] = "random"


class Grid(Asker):
    """Every combination of the values of a space that has finitely many; the last key changes fastest."""

    name: Literal["grid"] = "grid"


class Sobol(Asker):
    """Points that leave no gap: a scrambled Sobol sequence through the laws of the space (Owen 1998)."""

    name: Literal["sobol"] = "sobol"


class Tpe(Asker):
    """Where earlier trials were good, by a sampler of Optuna.

    ``tpe``: the tree-structured Parzen estimator (Bergstra et al. 2011), which knows laws that stand under choices.
    ``gp``: a Gaussian process and its log expected improvement, better with few trials of few numbers, and slower.

    It is asked for ``batch`` trials at a time, which train together, and told their results. Trials that are out
    count as bad ones meanwhile (the constant liar), so that a batch spreads.
    """

    learns: ClassVar[bool] = True
    name: Literal["optuna"] = "optuna"
    sampler: Literal["tpe", "gp"] = "tpe"
    """What learns."""
    batch: Annotated[PositiveInt, Field(le=MOST_MEMBERS)] = 16
    """Trials that are asked for at a time."""
    startup: NonNegativeInt = 16
    """Trials at random before it learns from them."""


class Bohb(Asker):
    """The estimator of ``optuna`` that proposes the brackets of ``hyperband`` (Falkner et al. 2018, arXiv:1807.01774).

    It is asked for one bracket at a time and learns from the last rung that enough trials have come to: two more than
    the space has keys, and one. Until then, and for a third of the trials, values are drawn at random.
    """

    learns: ClassVar[bool] = True
    name: Literal["bohb"] = "bohb"
    random_fraction: Annotated[float, Field(ge=0, le=1)] = 1 / 3
    """Share of the trials whose values are drawn at random whatever was learned."""


Algorithm = Annotated[Random | Grid | Sobol | Tpe | Bohb, Field(discriminator="name"), Shorthand()]
ALGORITHMS: Registry[Choice] = Registry("algorithm", Algorithm)
