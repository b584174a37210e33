"""Which average of a member's weights along its training predicts."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from ensemble_svc.registry import Choice, Elementwise, Registry, Shorthand

Start = Annotated[float, Field(ge=0, lt=1), Elementwise()]
Factor = Annotated[float, Field(gt=0, le=1), Elementwise()]
Number = Annotated[int, Field(ge=1, le=1000)]


class Averaging(Choice):
    """What the averages have in common: what they hold in memory."""

    @property
    @abstractmethod
    def copies(self) -> int:
        """Numbers of float32 that it holds in training for each of the member's."""


class NoAverage(Averaging):
    """The last (or best) weights as they are."""

    name: Literal["none"] = "none"

    @property
    def copies(self) -> int:
        return 0


class Ema(Averaging):
    """Exponential moving average of the weights, one update per step, debiased.

    The averaged weights are those that validate, stop early and predict; their batch-norm
    statistics are re-estimated on the member's training rows.
    """

    name: Literal["ema"] = "ema"
    decay: Annotated[float, Field(gt=0, lt=1), Elementwise()] = 0.999
    """Share of the average kept per step."""

    @property
    def copies(self) -> int:
        """The average, and the one of the best epoch."""
        return 2


class Polyak(Averaging):
    """Mean of the weights after every step from a start on, all counting alike, summed in float64.

    It validates, stops early and predicts as ``ema`` does; before its start the weights as they are do
    (Polyak & Juditsky 1992).
    """

    name: Literal["polyak"] = "polyak"
    start: Start = 0.5
    """Share of the steps after which it begins; 0 takes in the first step."""

    def first_step(self, total_steps: int) -> int:
        """Steps that are left out of the mean."""
        return _share_of(self.start, total_steps)

    @property
    def copies(self) -> int:
        """The mean in float64, itself in float32, and the one of the best epoch."""
        return 4


class Cycles(Averaging):
    """An average over the ends of cycles, which follow a learning rate of their own."""

    start: Start = 0.75
    """Share of the epochs, rounded down, after which the cycles begin; until then ``training.schedule`` holds."""
    every: Annotated[PositiveInt, Elementwise()] = 1
    """Epochs of a cycle; the weights at its end enter the mean."""
    high: Factor = 0.5
    """Factor of the learning rate at which a cycle begins."""
    low: Factor = 0.5
    """Factor of the learning rate to which it falls in a straight line; as large as ``high``, the rate is
    constant."""

    def first_epoch(self, epochs: int) -> int:
        """Epochs before the first cycle."""
        return _share_of(self.start, epochs)

    def num_cycles(self, epoch: int, epochs: int) -> int:
        """Cycles that have ended when ``epoch`` of ``epochs`` ends, epochs counted from 1."""
        return max(0, epoch - self.first_epoch(epochs)) // self.every

    def ends(self, epochs: int) -> tuple[int, ...]:
        """Epochs, counted from 1, with which a cycle ends."""
        first = self.first_epoch(epochs)
        return tuple(range(first + self.every, epochs + 1, self.every))


class Swa(Cycles):
    """Stochastic weight averaging (Izmailov et al. 2018, arXiv:1803.05407): mean of the weights at the ends of
    cycles, all counting alike, and a schedule of its own that keeps the rate high.

    It validates, stops early and predicts as ``ema`` does; until the first cycle ends the weights as they are
    do.
    """

    name: Literal["swa"] = "swa"

    @property
    def copies(self) -> int:
        """The mean in float64, itself in float32, and the one of the best epoch."""
        return 4


class Swag(Cycles):
    """A Gaussian around the mean that ``swa`` takes, half its covariance diagonal, half of low rank (Maddox et al.
    2019, arXiv:1902.02476); draws from it are the members of the ensemble.

    The mean validates as that of ``swa`` does.
    """

    name: Literal["swag"] = "swag"
    rank: Annotated[int, Field(ge=0, le=1000)] = 20
    """Last deviations from the mean that are held for the low rank; 0 for the diagonal alone, else at least 2."""
    samples: Annotated[int, Field(ge=1, le=1000)] = 30
    """Draws of each trained member; batch-norm statistics are estimated anew for each."""
    scale: Annotated[float, Field(ge=0, le=100), Elementwise()] = 1.0
    """Of the covariance; with 0 every draw is the mean."""

    @property
    def copies(self) -> int:
        """What ``swa`` holds, the variances and the deviations."""
        return 5 + self.rank


class LastN(Averaging):
    """Mean of the weights at the ends of the last epochs, of fewer while there are fewer.

    It validates, stops early and predicts as ``ema`` does.
    """

    name: Literal["last_n"] = "last_n"
    n: Number = 5
    """Epochs in the mean; so many copies of the weights are held."""

    @property
    def copies(self) -> int:
        """Those of the epochs, their mean, and the one of the best epoch."""
        return self.n + 2


class BestN(Averaging):
    """Mean of the weights at the ends of the best epochs by a validation metric, of fewer while there are fewer.

    Each epoch's own weights validate and stop early; the mean predicts. Of equal epochs the earlier counts as
    better.
    """

    name: Literal["best_n"] = "best_n"
    n: Number = 5
    """Epochs in the mean; so many copies of the weights are held."""
    metric: Literal["nll", "accuracy", "rmse"] = "nll"
    """What makes an epoch better, on the validation rows."""

    @property
    def copies(self) -> int:
        """Those of the epochs, their mean, and the one that is kept."""
        return self.n + 2


def _share_of(share: float, whole: int) -> int:
    """A share of a number, rounded down, less than all of it; 0.29 of 100 is 29 whatever binary fractions say."""
    return min(int(share * whole + 1e-9), whole - 1)


Average = Annotated[
    NoAverage | Ema | Polyak | Swa | Swag | LastN | BestN, Field(discriminator="name"), Shorthand()
]
AVERAGES: Registry[Choice] = Registry("average", Average)
