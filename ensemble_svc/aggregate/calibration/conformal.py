"""Sets of classes and intervals of numbers that hold the truth with a stated probability.

Split conformal prediction (Vovk et al. 2005; Papadopoulos et al. 2002): held-out rows are scored by how
badly the prediction fits them, and a new row's answer is everything that scores no worse than the
``ceil((n + 1)(1 - alpha))``-th smallest of those n scores. If new rows are exchangeable with the held-out ones,
the truth is in it with probability at least 1 - alpha (and below 1 - alpha + 1/(n + 1) where scores have
no ties), whatever the members are. It is a promise about rows on average, not about each kind of row.

Shapes: N rows, C classes, D targets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble_svc.aggregate.calibration.targets import check_classes, check_numbers
from ensemble_svc.errors import EnsembleError


@dataclass(frozen=True)
class PredictionSets:
    """Adaptive sets of classes (APS: Romano, Sesia & Candès 2020, arXiv:2006.02544)."""

    threshold: float
    """Largest score of a class that is in the set; infinite when the rows were too few."""
    alpha: float
    """Share of the truths that may be missed."""

    def apply(self, log_probs_NC: Tensor, uniform_N: Tensor | None = None) -> Tensor:
        """Which classes are in each row's set, [N, C] bool.

        Args:
            uniform_N: one draw from [0, 1) per row for the randomised sets, whose coverage is exact and
                which may be empty. Without it sets hold the most probable class always, and the truth at
                least as often as promised; the fit must have been without it too.

        Raises:
            EnsembleError: not one draw per row.
        """
        return _mass_above(log_probs_NC, uniform_N) <= self.threshold


@dataclass(frozen=True)
class PredictionIntervals:
    """Intervals around the mean, one width per target."""

    radius: tuple[float, ...]
    """[D]: half the width, in the target's units, or in predicted standard deviations if ``normalised``."""
    normalised: bool
    alpha: float
    """Share of the truths that may be missed, of each target."""

    def apply(self, mean_ND: Tensor, log_variance_ND: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Lower and upper ends, each [N, D] float64.

        Raises:
            EnsembleError: normalised intervals without a variance, or another number of targets.
        """
        if mean_ND.shape[-1] != len(self.radius):
            raise EnsembleError(
                f"these predictions have {mean_ND.shape[-1]} targets; the intervals are of {len(self.radius)}."
            )
        half_ND = mean_ND.new_tensor(self.radius, dtype=torch.float64) * self._unit(mean_ND, log_variance_ND)
        return mean_ND.double() - half_ND, mean_ND.double() + half_ND

    def _unit(self, mean_ND: Tensor, log_variance_ND: Tensor | None) -> Tensor:
        if not self.normalised:
            return torch.ones_like(mean_ND, dtype=torch.float64)
        if log_variance_ND is None:
            raise EnsembleError("these intervals are in predicted deviations; they need log_variance.")
        return (0.5 * log_variance_ND.double()).exp()


def fit_sets(
    log_probs_NC: Tensor, target_N: Tensor, *, alpha: float, uniform_N: Tensor | None = None
) -> PredictionSets:
    """Threshold of the adaptive sets from held-out rows.

    A row's score is the probability of all classes thought likelier than the truth, plus ``uniform_N`` times
    the truth's own. Without the draws none of its own is added: were all of it added, as is often done, the score
    of a confident network's right answer would be next to 1 and the sets as good as all classes (measured on
    eight published CIFAR-10 networks at 99 %: 5.5 classes, against 1.1 this way).

    Raises:
        EnsembleError: predictions and targets that do not belong together; alpha out of (0, 1).
    """
    check_classes(log_probs_NC, target_N)
    score_N = _mass_above(log_probs_NC, uniform_N).gather(1, target_N[:, None].long())[:, 0]
    return PredictionSets(conformal_quantile(score_N, alpha), alpha)


def fit_intervals(
    mean_ND: Tensor, log_variance_ND: Tensor | None, target_ND: Tensor, *, alpha: float
) -> PredictionIntervals:
    """Half widths from held-out rows' absolute residuals, in predicted deviations where there is a variance.

    Raises:
        EnsembleError: predictions and targets that do not belong together; alpha out of (0, 1).
    """
    check_numbers(mean_ND, log_variance_ND, target_ND)
    residual_ND = (target_ND.double() - mean_ND.double()).abs()
    if log_variance_ND is not None:
        residual_ND = residual_ND * (-0.5 * log_variance_ND.double()).exp()
    radius = tuple(conformal_quantile(residual_N, alpha) for residual_N in residual_ND.unbind(-1))
    return PredictionIntervals(radius, log_variance_ND is not None, alpha)


def conformal_quantile(score_N: Tensor, alpha: float) -> float:
    """The ceil((n + 1)(1 - alpha))-th smallest score; infinite where there is no such many.

    Raises:
        EnsembleError: alpha out of (0, 1), no scores, or NaN.
    """
    if not 0 < alpha < 1:
        raise EnsembleError(
            f"alpha is {alpha}; it is the share of truths that may be missed, between 0 and 1."
        )
    if len(score_N) == 0 or score_N.isnan().any():
        raise EnsembleError(f"the {len(score_N)} conformal scores hold NaN or are none.")
    rank = math.ceil((len(score_N) + 1) * (1 - alpha) - 1e-9)  # 10 x 0.9 is 9, not 10, by round-off
    return math.inf if rank > len(score_N) else score_N.sort().values[rank - 1].item()


def _mass_above(log_probs_NC: Tensor, uniform_N: Tensor | None) -> Tensor:
    """Probability of the likelier classes (of equals the lower numbers), with a share of the class's own."""
    probs_NC = log_probs_NC.double().exp()
    order_NC = probs_NC.argsort(dim=1, descending=True, stable=True)
    sorted_NC = probs_NC.gather(1, order_NC)
    own = 0.0 if uniform_N is None else _draws(uniform_N, len(probs_NC))
    mass_NC = sorted_NC.cumsum(dim=1) - sorted_NC + own * sorted_NC
    return torch.empty_like(mass_NC).scatter_(1, order_NC, mass_NC)


def _draws(uniform_N: Tensor, num_rows: int) -> Tensor:
    if uniform_N.shape != (num_rows,) or not ((uniform_N >= 0) & (uniform_N <= 1)).all():
        raise EnsembleError(
            f"the draws have shape {list(uniform_N.shape)}; {num_rows} rows need one from 0 to 1 each."
        )
    return uniform_N.double()[:, None]
