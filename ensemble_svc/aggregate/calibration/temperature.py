"""Temperature scaling: one number that makes probabilities softer or sharper (Guo et al. 2017, arXiv:1706.04599).

Log probabilities are divided by T and normalised; dividing the logits gives the same. *After* pooling, the
mixture is tempered: its predicted classes stay, and its negative log likelihood is convex in 1/T. *Before*
pooling each member is tempered, by one T, and then mixed: their mixture is less sure than they are, so a
T that suits the members alone would leave the ensemble underconfident (Rahaman & Thiery 2021,
arXiv:2007.08792). T is therefore chosen by the likelihood of what is finally said, in either case.

Laws: T = 1 changes nothing; on the rows of the fit the likelihood never falls; after pooling no predicted class
changes.

Shapes: K members, N held-out rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from ensemble_svc.aggregate.calibration.line import least_on, root_of_increasing
from ensemble_svc.aggregate.calibration.targets import check_classes
from ensemble_svc.aggregate.predictions import average
from ensemble_svc.errors import EnsembleError

COLDEST, HOTTEST = 0.01, 100.0
"""Bounds of T. Rows that are all right (or that tell nothing) have no finite best T, and end at a bound."""
FLOOR = -1e3
"""Log of a probability of 0, in the fit only, so that one impossible truth does not hide all other rows."""


@dataclass(frozen=True)
class Temperature:
    """What log probabilities are divided by."""

    value: float
    """T: above 1 softens, below 1 sharpens."""
    before: bool
    """Whether members are tempered before they are mixed."""

    def __post_init__(self) -> None:
        if not 0 < self.value < float("inf"):
            raise EnsembleError(f"the temperature is {self.value}; it is a finite number above 0.")

    def apply(self, log_probs: Tensor) -> Tensor:
        """Tempered log probabilities, [..., C] of the same shape and type: the members' or the mixture's."""
        if self.value == 1:
            return log_probs
        return (log_probs.double() / self.value).log_softmax(dim=-1).to(log_probs.dtype)

    def pool(self, log_probs_KNC: Tensor, weights_K: Tensor | None = None) -> Tensor:
        """The tempered mixture, [N, C], with T where it belongs.

        Raises:
            EnsembleError: members or weights that cannot be combined.
        """
        if not self.before:
            return self.apply(average(log_probs_KNC, weights_K))
        return average(self.apply(log_probs_KNC), weights_K)


def fit_after(log_probs_NC: Tensor, target_N: Tensor) -> Temperature:
    """The T that gives held-out rows the greatest likelihood, for a mixture or a single member.

    The slope of the negative log likelihood in 1/T is increasing, so bisection finds its one zero.

    Raises:
        EnsembleError: predictions and targets that do not belong together.
    """
    check_classes(log_probs_NC, target_N)
    log_probs_NC = log_probs_NC.double().clamp(min=FLOOR)
    truth = log_probs_NC.gather(1, target_N[:, None].long()).mean()

    def slope(sharpness: float) -> float:
        expected_N = ((log_probs_NC * sharpness).softmax(dim=-1) * log_probs_NC).sum(dim=-1)
        return (expected_N.mean() - truth).item()

    if slope(1.0) == 0:
        return Temperature(1.0, before=False)
    return Temperature(1 / root_of_increasing(slope, 1 / HOTTEST, 1 / COLDEST), before=False)


def fit_before(log_probs_KNC: Tensor, target_N: Tensor, weights_K: Tensor | None = None) -> Temperature:
    """The T of the members that gives held-out rows the greatest likelihood under their mixture.

    This is not convex for certain, so a grid is looked at first; T = 1 is always among the candidates.

    Raises:
        EnsembleError: predictions, weights and targets that do not belong together.
    """
    return fit_before_pooling(lambda: [(log_probs_KNC, target_N)], weights_K)


def fit_before_pooling(
    pieces: Callable[[], Iterable[tuple[Tensor, Tensor]]], weights_K: Tensor | None = None
) -> Temperature:
    """As ``fit_before``, of rows that are looked at a piece at a time.

    Args:
        pieces: log probabilities [K, n, C] and targets [n] of all rows, as often as it is called.

    Raises:
        EnsembleError: as ``fit_before``.
    """
    num_rows = 0
    for log_probs_KnC, target_n in pieces():
        check_classes(average(log_probs_KnC, weights_K), target_n)  # the average checks the members
        num_rows += len(target_n)

    def loss(temperature: float) -> float:
        tempered = Temperature(temperature, before=True)
        total = sum(
            tempered.pool(log_probs_KnC.double(), weights_K)
            .gather(1, target_n[:, None].long())
            .clamp(min=FLOOR)
            .sum()
            .item()
            for log_probs_KnC, target_n in pieces()
        )
        return -total / num_rows

    return Temperature(least_on(loss, COLDEST, HOTTEST), before=True)
