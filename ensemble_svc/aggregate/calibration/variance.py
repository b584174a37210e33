"""A scale of the predicted variance: regression's temperature (Laves et al. 2020; Levi et al. 2022).

For one Gaussian the best scale is the mean squared error in units of its own deviations, in closed form. For a
mixture of Gaussians each member's variance is scaled before they are mixed, and the scale is the one whose
mixture gives the held-out rows the greatest likelihood.

Laws: 1 changes nothing; on the rows of the fit the likelihood never falls; means stay.

Shapes: K members, N held-out rows, D targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from ensemble_svc.aggregate.calibration.line import least_on
from ensemble_svc.aggregate.calibration.targets import check_numbers
from ensemble_svc.aggregate.predictions import mixture_log_density
from ensemble_svc.errors import EnsembleError

SMALLEST, LARGEST = 1e-4, 1e4
"""Bounds of the scale of the variance."""


@dataclass(frozen=True)
class VarianceScale:
    """What predicted variances are multiplied by."""

    value: float
    """Above 1 widens."""
    before: bool
    """Whether it is the members' variances, before they are mixed."""

    def __post_init__(self) -> None:
        if not 0 < self.value < math.inf:
            raise EnsembleError(f"the scale of the variance is {self.value}; it is a finite number above 0.")

    def apply(self, log_variance: Tensor) -> Tensor:
        """Scaled log variance, of the same shape and type: the members' or the ensemble's."""
        return log_variance + math.log(self.value)


def fit_gaussian(mean_ND: Tensor, log_variance_ND: Tensor, target_ND: Tensor) -> VarianceScale:
    """The scale that gives held-out rows the greatest likelihood under their own Gaussians.

    Kept within ``SMALLEST`` to ``LARGEST``: errors of exactly 0 would ask for no variance at all.

    Raises:
        EnsembleError: predictions and targets that do not belong together.
    """
    check_numbers(mean_ND, log_variance_ND, target_ND)
    error_ND = (target_ND.double() - mean_ND.double()) * (-0.5 * log_variance_ND.double()).exp()
    return VarianceScale(min(max(error_ND.square().mean().item(), SMALLEST), LARGEST), before=False)


def fit_mixture(
    mean_KND: Tensor, log_variance_KND: Tensor, target_ND: Tensor, weights_K: Tensor | None = None
) -> VarianceScale:
    """The scale of the members' variances that gives held-out rows the greatest likelihood when mixed.

    Raises:
        EnsembleError: predictions, weights and targets that do not belong together.
    """
    return fit_mixtures(lambda: [(mean_KND, log_variance_KND, target_ND)], weights_K)


def fit_mixtures(
    pieces: Callable[[], Iterable[tuple[Tensor, Tensor, Tensor]]], weights_K: Tensor | None = None
) -> VarianceScale:
    """As ``fit_mixture``, of rows that are looked at a piece at a time.

    Args:
        pieces: means and log variances [K, n, D] and targets [n, D] of all rows, as often as it is called.

    Raises:
        EnsembleError: as ``fit_mixture``.
    """
    for mean_KnD, _, target_nD in pieces():
        check_numbers(mean_KnD[0], None, target_nD)

    def densities(scale: float) -> Iterator[Tensor]:
        for mean_KnD, log_variance_KnD, target_nD in pieces():
            scaled_KnD = log_variance_KnD.double() + math.log(scale)
            yield mixture_log_density(mean_KnD, scaled_KnD, target_nD, weights_K)

    return fit_scale(densities)


def fit_scale(densities: Callable[[float], Iterable[Tensor]]) -> VarianceScale:
    """The scale of the members' variances under which what is mixed of them gives the rows the greatest likelihood.

    Args:
        densities: log densities [n] of all rows, a piece at a time, with the members' variances scaled by so much.

    Raises:
        EnsembleError: no rows.
    """

    def loss(scale: float) -> float:
        total, num_rows = 0.0, 0
        for density_n in densities(scale):
            total, num_rows = total + density_n.sum().item(), num_rows + len(density_n)
        if not num_rows:
            raise EnsembleError("there is no row to fit the scale of the variance on.")
        return -total / num_rows

    return VarianceScale(least_on(loss, SMALLEST, LARGEST), before=True)
