"""How the learning rate changes over the steps."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from ensemble_svc.registry import Choice, Registry, Shorthand


class Warmed(Choice):
    """A schedule that may begin with a warm-up."""

    warmup: NonNegativeInt = 0
    """Steps of linear rise before it (arXiv:1706.02677); the schedule is laid over those that are left."""


class Constant(Warmed):
    """The same learning rate at every step."""

    name: Literal["constant"] = "constant"


class Cosine(Warmed):
    """Half a cosine from 1 down to ``floor`` over all steps (arXiv:1608.03983)."""

    name: Literal["cosine"] = "cosine"
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The last factor."""


class Linear(Warmed):
    """A straight line from 1 down to ``floor`` over all steps."""

    name: Literal["linear"] = "linear"
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The last factor."""


class StepDecay(Warmed):
    """Multiplied by ``gamma`` after every so many epochs."""

    name: Literal["step"] = "step"
    every: PositiveInt = 10
    """Epochs between two drops."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.5
    """What each drop leaves."""


class Exponential(Warmed):
    """Falls by the same share at every step."""

    name: Literal["exponential"] = "exponential"
    decay: Annotated[float, Field(ge=1)] = 100.0
    """The last factor is one over this."""


class Inverse(Warmed):
    """Falls as 1 / (1 + k t), fast at first and then ever more slowly (Robbins & Monro 1951)."""

    name: Literal["inverse"] = "inverse"
    decay: Annotated[float, Field(ge=1)] = 100.0
    """The last factor is one over this."""


class OneCycle(Choice):
    """Up from a small rate and down to almost none, along half cosines (arXiv:1708.07120)."""

    name: Literal["one_cycle"] = "one_cycle"
    rise: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the steps in which it rises."""
    start: Annotated[float, Field(ge=1)] = 25.0
    """The first factor is one over this."""
    end: Annotated[float, Field(ge=1)] = 1e4
    """The last factor is the first one over this."""


Schedule = Annotated[
    Constant | Cosine | Linear | StepDecay | Exponential | Inverse | OneCycle,
    Field(discriminator="name"),
    Shorthand(),
]
SCHEDULES: Registry[Choice] = Registry("schedule", Schedule)
