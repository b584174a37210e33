"""What training minimises, and with it what a network's outputs mean."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ensemble_svc.registry import Choice, Elementwise, Registry, Shorthand


class CrossEntropy(Choice):
    """Classification: minus the log probability of the true class."""

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1), Elementwise()] = 0.0
    """Share of the target spread over all classes (arXiv:1512.00567)."""


class GaussianNll(Choice):
    """Regression: a mean and a variance per target (Nix & Weigend 1994; softplus + 1e-6)."""

    name: Literal["gaussian_nll"] = "gaussian_nll"


class Mse(Choice):
    """Regression: a mean per target; its variance is that of the training residuals, one for all rows."""

    name: Literal["mse"] = "mse"


class AutoLoss(Choice):
    """Cross-entropy for classification, the Gaussian's negative log likelihood for regression."""

    name: Literal["auto"] = "auto"


Loss = Annotated[AutoLoss | CrossEntropy | GaussianNll | Mse, Field(discriminator="name"), Shorthand()]
LOSSES: Registry[Choice] = Registry("loss", Loss)
