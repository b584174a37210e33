"""How well a score tells rows from elsewhere from rows like those of the training.

The score is a doubt: larger for rows that look foreign. Law: the numbers depend only on the order of the
scores, so any increasing function of them says the same.

Shapes: N rows of the usual source, M rows from elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError


@dataclass(frozen=True)
class Detection:
    """Rows from elsewhere told from the usual ones."""

    auroc: float
    """Probability that a row from elsewhere is doubted more than a usual one, ties counting half."""
    aupr_out: float
    """Average precision when rows from elsewhere are what is looked for; its chance level is M / (N + M)."""
    aupr_in: float
    """Average precision when usual rows are what is looked for."""
    fpr95: float
    """Share of the rows from elsewhere still taken in by the threshold that takes in 95 % of the usual ones."""


def detect(doubt_in_N: Tensor, doubt_out_M: Tensor, *, kept: float = 0.95) -> Detection:
    """The four usual numbers (Hendrycks & Gimpel 2017; Liang et al. 2018).

    Args:
        doubt_in_N: of rows of the usual source.
        doubt_out_M: of rows from elsewhere.
        kept: share of the usual rows that must be taken in, for ``fpr95``.

    Raises:
        EnsembleError: no rows of one kind, or a doubt that is NaN.
    """
    for name, doubt in (("usual rows", doubt_in_N), ("rows from elsewhere", doubt_out_M)):
        if doubt.ndim != 1 or len(doubt) == 0 or doubt.isnan().any():
            raise EnsembleError(
                f"the doubts of the {name} have shape {list(doubt.shape)}; they must be [rows], none NaN."
            )
    doubt_in_N, doubt_out_M = doubt_in_N.double(), doubt_out_M.double()
    return Detection(
        auroc=_auroc(doubt_in_N, doubt_out_M),
        aupr_out=_average_precision(doubt_out_M, doubt_in_N),
        aupr_in=_average_precision(-doubt_in_N, -doubt_out_M),
        fpr95=(doubt_out_M <= _threshold(doubt_in_N, kept)).double().mean().item(),
    )


def _auroc(low_N: Tensor, high_M: Tensor) -> float:
    """Mann & Whitney's statistic over the number of pairs."""
    low_N = low_N.sort().values
    below_M = torch.searchsorted(low_N, high_M)
    up_to_M = torch.searchsorted(low_N, high_M, right=True)
    return (below_M + up_to_M).double().mean().item() / (2 * len(low_N))


def _average_precision(wanted_N: Tensor, other_M: Tensor) -> float:
    """Sum of precision times gain in recall over the thresholds, as scikit-learn has it: no interpolation."""
    values_T, group, _ = torch.cat([wanted_N, other_M]).unique(return_inverse=True, return_counts=True)
    wanted_T = torch.bincount(group[: len(wanted_N)], minlength=len(values_T)).flip(0)
    other_T = torch.bincount(group[len(wanted_N) :], minlength=len(values_T)).flip(0)
    found_T = wanted_T.cumsum(0).double()
    precision_T = found_T / (found_T + other_T.cumsum(0))
    return (precision_T * wanted_T).sum().item() / len(wanted_N)


def _threshold(doubt_N: Tensor, kept: float) -> float:
    """The least doubt that at least the share ``kept`` of the rows do not exceed."""
    rank = max(math.ceil(kept * len(doubt_N) - 1e-9), 1)
    return doubt_N.sort().values[rank - 1].item()
