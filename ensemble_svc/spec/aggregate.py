"""The ``aggregate`` section: from the members to the ensemble. All of it is decided on held-out rows."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from ensemble_svc.registry import Choice, Registry, Shorthand, Spec
from ensemble_svc.spec.fields import Share

Score = Literal["auto", "nll", "accuracy", "brier", "rmse"]
"""What members are selected by; auto: the negative log likelihood."""


class Rule(Choice):
    """What is decided about members."""

    needs_rows: ClassVar[bool] = True
    """Whether it is decided on held-out rows."""
    classes_only: ClassVar[bool] = False
    """Whether it has a meaning for class probabilities alone."""


class Mean(Rule):
    """The mixture: the mean of the members' probabilities, or of their densities (arXiv:1612.01474)."""

    needs_rows: ClassVar[bool] = False
    name: Literal["mean"] = "mean"


class Geometric(Rule):
    """The mean of the log probabilities, normalised; one member that is sure that a class is wrong vetoes it."""

    needs_rows: ClassVar[bool] = False
    classes_only: ClassVar[bool] = True
    name: Literal["geometric"] = "geometric"


class Vote(Rule):
    """Each member votes for its most probable class; ties go to the class with the larger mean probability."""

    needs_rows: ClassVar[bool] = False
    classes_only: ClassVar[bool] = True
    name: Literal["vote"] = "vote"


class Stacking(Rule):
    """A mixture with the weights that give held-out rows the greatest likelihood (Wolpert 1992; Smyth 1999).

    Each of several tasks has weights of its own.
    """

    name: Literal["stacking"] = "stacking"
    prior_rows: NonNegativeFloat = 10.0
    """Pull towards equal weights, as though so many more rows had been seen; 0 for none."""


Combine = Annotated[Mean | Geometric | Vote | Stacking, Field(discriminator="name"), Shorthand()]
COMBINES: Registry[Choice] = Registry("combine", Combine)


class All(Rule):
    """Every member that finished, with equal weights."""

    needs_rows: ClassVar[bool] = False
    name: Literal["all"] = "all"


class TopK(Rule):
    """The ``k`` members that score best alone, with equal weights."""

    name: Literal["top_k"] = "top_k"
    k: PositiveInt = 5
    """How many; all of them where fewer finished."""
    score: Score = "auto"
    """What they are ranked by."""


class Greedy(Rule):
    """Again and again the member that makes the ensemble best, which may come again (Caruana et al. 2004).

    Out of bag (``data.validation: oob`` or ``oof``) picks come on top of one vote for each member.
    """

    name: Literal["greedy"] = "greedy"
    picks: PositiveInt = 50
    """Picks that are tried; the best beginning of them is kept."""
    score: Score = "auto"
    """What the ensemble is judged by."""
    sorted_start: NonNegativeInt = 0
    """Begin with the best ensemble of at most so many of the best single members."""
    bags: NonNegativeInt = 0
    """Mean of so many selections, each from a random share of the members; 0 selects once from all."""
    share: Share = 0.5
    """Share of the members in each bag."""


class Diverse(Rule):
    """Members one by one, by their own error less how far they are from the chosen ones.

    Of classes shares of wrong rows and of rows on which two differ; of numbers squared errors and squared distances, in
    the target's variance; of several tasks the mean over them, as they count in training.
    """

    name: Literal["diverse"] = "diverse"
    k: PositiveInt = 5
    """How many; all of them where fewer finished."""
    diversity: NonNegativeFloat = 0.5
    """What disagreement counts against error; 0 is top_k by accuracy, of numbers by rmse."""


Select = Annotated[All | TopK | Greedy | Diverse, Field(discriminator="name"), Shorthand()]
SELECTS: Registry[Choice] = Registry("select", Select)


class NoCalibration(Rule):
    """The probabilities, or variances, as they come out."""

    needs_rows: ClassVar[bool] = False
    name: Literal["none"] = "none"


class Temperature(Rule):
    """Log probabilities over one number, normalised (Guo et al. 2017, arXiv:1706.04599)."""

    classes_only: ClassVar[bool] = True
    name: Literal["temperature"] = "temperature"
    when: Literal["after", "before", "auto"] = "after"
    """Of the ensemble (after), of each member before they are mixed (arXiv:2101.06323), or whichever has the
    lower held-out negative log likelihood (auto)."""


class Vector(Rule):
    """A scale and a shift for the log probability of each class (Guo et al. 2017, arXiv:1706.04599)."""

    classes_only: ClassVar[bool] = True
    name: Literal["vector"] = "vector"


class Isotonic(Rule):
    """A rising function of each class's probability, normalised (Zadrozny & Elkan 2002); wants many rows."""

    classes_only: ClassVar[bool] = True
    name: Literal["isotonic"] = "isotonic"


class Variance(Rule):
    """Regression: the members' variances times one number, which gives held-out rows the greatest likelihood."""

    name: Literal["variance"] = "variance"


Calibrate = Annotated[
    NoCalibration | Temperature | Vector | Isotonic | Variance, Field(discriminator="name"), Shorthand()
]
CALIBRATES: Registry[Choice] = Registry("calibrate", Calibrate)


class NoSoup(Rule):
    """Members' weights are left apart."""

    needs_rows: ClassVar[bool] = False
    name: Literal["none"] = "none"


class UniformSoup(Rule):
    """The mean of all members' weights, as one network beside the ensemble (arXiv:2203.05482).

    Made where the loss does not rise between members: of one pretrained network, say, that they all began from.
    """

    name: Literal["uniform"] = "uniform"
    barrier: NonNegativeFloat = 0.05
    """Largest rise of the validation loss between two members, in nats, with which weights are averaged."""


class GreedySoup(Rule):
    """The mean of the weights of members that, from the best on, make it no worse (arXiv:2203.05482)."""

    name: Literal["greedy"] = "greedy"
    barrier: NonNegativeFloat = 0.05
    """Largest rise of the validation loss between two members, in nats, with which weights are averaged."""


Soup = Annotated[NoSoup | UniformSoup | GreedySoup, Field(discriminator="name"), Shorthand()]
SOUPS: Registry[Choice] = Registry("soup", Soup)


class AggregateSpec(Spec):
    """From the members' predictions to the ensemble's; selected, weighed and calibrated on held-out rows alone."""

    combine: Combine = Mean()
    """How the members' predictions become one."""
    select: Select = All()
    """Which members are in the ensemble."""
    soup: Soup = NoSoup()
    """One network of the members' averaged weights, beside the ensemble."""
    calibrate: Calibrate = NoCalibration()
    """Recalibration of what the ensemble says."""
    conformal: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of new rows that the sets of classes, or the intervals, may miss: adds them to predictions and
    their coverage to the metrics, fitted on one half of the
    held-out rows where the other selects or calibrates (split conformal; adaptive sets, arXiv:2006.02544)."""

    @property
    def rules(self) -> tuple[tuple[str, Rule], ...]:
        """What is decided, by key."""
        parts = ("combine", self.combine), ("select", self.select), ("calibrate", self.calibrate)
        return (*parts, ("soup", self.soup))
