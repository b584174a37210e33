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


Decay = Annotated[float, Field(ge=1)]


class Cosine(Warmed):
    """Half a cosine from 1 down to ``floor`` over all steps (arXiv:1608.03983)."""

    name: Literal["cosine"] = "cosine"
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The last factor."""
    decay: Decay | None = None
    """In place of ``floor``: the last factor is one over this."""


class Linear(Warmed):
    """A straight line from 1 down to ``floor`` over all steps."""

    name: Literal["linear"] = "linear"
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The last factor."""
    decay: Decay | None = None
    """In place of ``floor``: the last factor is one over this."""


class StepDecay(Warmed):
    """Multiplied by ``gamma`` after every so many epochs."""

    name: Literal["step"] = "step"
    every: PositiveInt = 10
    """Epochs between two drops."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.5
    """What each drop leaves."""
    decay: Decay | None = None
    """In place of ``gamma``: the factor after the last drop is one over this, all drops alike."""


class Exponential(Warmed):
    """Falls by the same share at every step."""

    name: Literal["exponential"] = "exponential"
    decay: Decay = 100.0
    """The last factor is one over this."""


class Inverse(Warmed):
    """Falls as 1 / (1 + k t), fast at first and then ever more slowly (Robbins & Monro 1951)."""

    name: Literal["inverse"] = "inverse"
    decay: Decay = 100.0
    """The last factor is one over this."""


class Plateau(Warmed):
    """Lowered whenever a member no longer improves, as torch's ``ReduceLROnPlateau`` does; each on its own."""

    name: Literal["plateau"] = "plateau"
    metric: Literal["nll", "accuracy", "rmse", "train_loss"] = "nll"
    """What is watched at each epoch's end, on the validation rows; without any, nll stands for the training loss."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What multiplies the rate at a plateau."""
    patience: NonNegativeInt = 10
    """Epochs without improvement that are borne; the next one lowers the rate."""
    threshold: Annotated[float, Field(ge=0, lt=1)] = 1e-4
    """Smallest improvement that counts, as a share of the best value's size."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The smallest factor."""


class OneCycle(Choice):
    """Up from a small rate and down to almost none, along half cosines (arXiv:1708.07120)."""

    name: Literal["one_cycle"] = "one_cycle"
    rise: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the steps in which it rises."""
    start: Annotated[float, Field(ge=1)] = 25.0
    """The first factor is one over this."""
    end: Annotated[float, Field(ge=1)] = 1e4
    """The last factor is the first one over this."""


class Cyclic(Choice):
    """Half a cosine from 1 down to ``floor``, again and again (arXiv:1608.03983); ``ensemble.snapshots`` makes
    members of the weights at the ends of its cycles (arXiv:1704.00109)."""

    name: Literal["cyclic"] = "cyclic"
    cycles: Annotated[int, Field(ge=1, le=1000)] = 5
    """Cycles of equal length."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """What each cycle falls to."""

    def ends(self, epochs: int) -> tuple[int, ...]:
        """Epochs, counted from 1, with which a cycle ends."""
        return tuple(
            c * epochs // self.cycles for c in range(1, self.cycles + 1) if not c * epochs % self.cycles
        )


Schedule = Annotated[
    Constant | Cosine | Linear | StepDecay | Exponential | Inverse | Plateau | OneCycle | Cyclic,
    Field(discriminator="name"),
    Shorthand(),
]
SCHEDULES: Registry[Choice] = Registry("schedule", Schedule)
