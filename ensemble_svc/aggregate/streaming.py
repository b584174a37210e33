"""The mixture of very many members on a few rows at a time, as fast as the rows can be read.

A float32 log probability of -5 is itself only told to 2e-7 of its probability, so the exponentials are taken in float32
(off by 2e-7), added in float32 a few members at a time, and those sums in float64. Rows with a class so improbable that
float32 has no digits for it are told, to be combined as ``predictions.average`` does. Law: the result is that of
``average`` to 1e-6 of each probability.

Shapes: K members, N rows, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ensemble_svc.aggregate.checks import NORMALISATION_TOLERANCE, not_normalised
from ensemble_svc.errors import EnsembleError

TOGETHER = 8
"""Members whose probabilities are added in float32."""
TINY = 1e-30
"""A mean probability below this is to be computed anew in float64: float32 has nothing below 1e-38."""


class Mixture:
    """Members' mean probability, as they come one after another, on rows that come some at a time; one thread's own.

    Args:
        shares: of the members, non-negative, sum 1.
        num_classes: C.
        most_rows: N at most.
    """

    def __init__(self, shares: list[float], num_classes: int, most_rows: int) -> None:
        self._shares = shares
        self._even = len(set(shares)) == 1
        self._few = torch.empty(most_rows, num_classes)
        self._mean = torch.empty(most_rows, num_classes, dtype=torch.float64)

    def begin(self, num_rows: int) -> None:
        """Go on to other rows."""
        self._few_NC, self._mean_NC = self._few[:num_rows], self._mean[:num_rows].zero_()
        self._added = 0

    def add(self, probs_NC: Tensor) -> None:
        """Take in the next member's probabilities, float32."""
        share = 1.0 if self._even else self._shares[self._added]
        if self._added % TOGETHER:
            self._few_NC.add_(probs_NC, alpha=share)
        else:
            torch.mul(probs_NC, share, out=self._few_NC)
        self._added += 1
        if self._added % TOGETHER == 0 or self._added == len(self._shares):
            self._mean_NC.add_(self._few_NC, alpha=self._shares[0] if self._even else 1.0)

    def log(self, into_NC: Tensor) -> Tensor:
        """Fill in the logs; returns the rows that ``average`` must combine, [M]."""
        tiny_N = (self._mean_NC < TINY).any(dim=1)
        into_NC.copy_(self._mean_NC.log_())
        return tiny_N.nonzero()[:, 0]


def check_totals(totals_N: Tensor, *, member: int, first_row: int) -> None:
    """Refuse rows whose probabilities do not sum to 1, by what they sum to.

    Raises:
        EnsembleError: naming the member and its first wrong row.
    """
    low, high = (end.item() for end in torch.aminmax(totals_N))
    if low >= 1 - NORMALISATION_TOLERANCE / 2 and high <= 1 + NORMALISATION_TOLERANCE / 2:
        return
    wrong_N = ~(totals_N.log().abs() <= NORMALISATION_TOLERANCE)
    if wrong_N.any():
        row = int(wrong_N.nonzero()[0])
        raise EnsembleError(not_normalised(member, first_row + row, totals_N[row].item()))
