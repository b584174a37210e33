"""What is fitted on each member's training rows and done to every row before the network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from ensemble_svc.registry import Choice, Registry, Shorthand
from ensemble_svc.spec.fields import Share


class Center(Choice):
    """Each feature minus its mean; images minus the mean image."""

    name: Literal["center"] = "center"


class PerChannelCenter(Choice):
    """Images: minus the mean of each channel, pixels counted from 0 to 1."""

    name: Literal["per_channel_center"] = "per_channel_center"


class Scale(Choice):
    """Divides each feature so that the mean of its squares is 1, without centring it (LeCun et al. 1998).

    All features then weigh alike in the speed of learning (Efficient BackProp, section 4.3). A feature that is
    0 on all training rows stays 0.
    """

    name: Literal["scale"] = "scale"


class Standardize(Choice):
    """Each feature (each pixel, for images) to mean 0 and standard deviation 1.

    A feature that is constant on the training rows becomes 0.
    """

    name: Literal["standardize"] = "standardize"


class Decorrelate(Choice):
    """Centres and rotates to the principal axes (PCA), the axis of the largest variance first.

    The new features are uncorrelated. Images are flattened. Each axis points to where its largest weight is
    positive.
    """

    name: Literal["decorrelate"] = "decorrelate"
    components: PositiveInt | None = None
    """Axes kept, so many inputs of the network; null keeps all."""
    variance: Share | None = None
    """Share of the variance kept: further axes become 0, and the number of inputs stays that of the features. Give
    ``components`` or ``variance``."""


class Whiten(Choice):
    """Centres and makes the features uncorrelated with variance 1: their covariance is the identity.

    A feature that is constant on the training rows becomes 0.
    """

    name: Literal["whiten"] = "whiten"
    method: Literal["pca", "zca"] = "pca"
    """``pca`` turns to the principal axes and flattens images; ``zca`` turns back, which leaves the features as
    near to what they were as white ones can be, and an image an image."""
    shrinkage: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = 0.0
    """How far the covariance goes towards equal variances without correlations, for few rows. ``auto`` takes
    the share of Ledoit & Wolf (2004)."""
    eps: NonNegativeFloat = 1e-6
    """Share of its own variance that is added to each feature's variance, against directions without any."""


class Impute(Choice):
    """Missing numbers become the training rows' median or mean, and an indicator column is added."""

    name: Literal["impute"] = "impute"
    strategy: Literal["median", "mean"] = "median"
    """What stands in for a missing number."""
    indicator: bool = True
    """Add a 0/1 column for each feature that has missing values in the training split."""


Preprocess = Annotated[
    Center | PerChannelCenter | Scale | Standardize | Decorrelate | Whiten | Impute,
    Field(discriminator="name"),
    Shorthand(),
]
PREPROCESS: Registry[Choice] = Registry("preprocess", Preprocess)
