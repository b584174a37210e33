"""Normalisations, each by the set of numbers whose mean and variance it takes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from ensemble_svc.registry import Choice, Registry, Shorthand
from ensemble_svc.spec.fields import Share


class Normalisation(Choice):
    """What others must know of a norm."""

    is_layer: ClassVar[bool] = True
    """Whether it is a layer of its own, with a scale and a shift for each unit or channel."""
    sees_batch: ClassVar[bool] = False
    """Whether a row's outputs in training depend on the other rows of its batch."""


class NoNorm(Normalisation):
    """The layers' outputs as they are."""

    is_layer: ClassVar[bool] = False
    name: Literal["none"] = "none"


class BatchNorm(Normalisation):
    """Each unit, or channel at all places, over the rows of a batch (arXiv:1502.03167).

    In prediction the averages of the batches that were seen in training stand in for the batch's own.
    """

    sees_batch: ClassVar[bool] = True
    name: Literal["batch"] = "batch"
    momentum: Share = 0.1
    """Share of the newest batch in the running averages."""
    statistics: Literal["running", "reestimated"] = "running"
    """What predicts in the end: the running averages, or the mean over one pass of the finished member through its
    own training rows."""


class LayerNorm(Normalisation):
    """Each row over all units, or over all channels and places (arXiv:1607.06450)."""

    name: Literal["layer"] = "layer"


class InstanceNorm(Normalisation):
    """Each row and channel over its places (arXiv:1607.08022).

    For convolutions; dense layers have one place, and go without.
    """

    name: Literal["instance"] = "instance"


class GroupNorm(Normalisation):
    """Each row and group of neighbouring channels over its places (arXiv:1803.08494)."""

    name: Literal["group"] = "group"
    groups: PositiveInt = 8
    """Groups at most; a layer has the largest number that divides its channels and leaves each group two."""


class WeightNorm(Normalisation):
    """Weights as a length and a direction for each unit, w = g v / |v|, both learned (arXiv:1602.07868).

    It looks at no data. Hidden layers have it and keep their biases; penalties on the weights act on v.
    """

    is_layer: ClassVar[bool] = False
    name: Literal["weight"] = "weight"


class BatchRenorm(Normalisation):
    """Batch norm led back to its running averages, by factors that are bounded (arXiv:1702.03275).

    At first it is batch norm; the bounds widen linearly after ``warmup`` steps.
    """

    sees_batch: ClassVar[bool] = True
    name: Literal["batch_renorm"] = "batch_renorm"
    momentum: Share = 0.01
    """Share of the newest batch in the running averages."""
    r_max: Annotated[float, Field(ge=1)] = 3.0
    """Largest ratio, either way, of the batch's deviation to the running one that is led back."""
    d_max: NonNegativeFloat = 5.0
    """Largest distance of the batch's mean from the running one that is led back, in running deviations."""
    warmup: NonNegativeInt = 5_000
    """Steps of plain batch norm."""
    r_steps: NonNegativeInt = 40_000
    """Step at which the ratio's bound is ``r_max``."""
    d_steps: NonNegativeInt = 25_000
    """Step at which the distance's bound is ``d_max``."""


Norm = Annotated[
    NoNorm | BatchNorm | LayerNorm | InstanceNorm | GroupNorm | WeightNorm | BatchRenorm,
    Field(discriminator="name"),
    Shorthand(),
]
NORMS: Registry[Choice] = Registry("norm", Norm)
