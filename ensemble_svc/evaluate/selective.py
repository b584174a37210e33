"""Selective prediction: what is gained by leaving the most doubtful rows to someone else.

Rows are answered in order of their doubt, the surest first; the risk at a coverage is the mean loss of those
answered so far. AURC, the area under that curve (Geifman & El-Yaniv 2017), mixes how good the
predictions are with how well the doubt ranks them; the excess over the best ranking of the same losses is
the ranking's own (Geifman, Uziel & El-Yaniv 2019). Rows of equal doubt are answered in random order: the risk
is its expectation.

Shapes: N examples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.calibration_error import shared_by_ties


def risk_coverage(loss_N: Tensor, doubt_N: Tensor) -> Tensor:
    """Mean loss of the surest 1, 2, … N rows, [N] float64; coverage is i / N.

    Args:
        loss_N: 0 or 1 for an error, or any loss.
        doubt_N: larger for rows to be left out earlier.

    Raises:
        EnsembleError: not one finite number of each per row.
    """
    _check(loss_N, doubt_N)
    doubt_N, order_N = doubt_N.sort()
    answered_N = torch.arange(1, len(loss_N) + 1, dtype=torch.float64, device=loss_N.device)
    return shared_by_ties(doubt_N, loss_N.double()[order_N]).cumsum(0) / answered_N


def aurc(loss_N: Tensor, doubt_N: Tensor) -> float:
    """Area under the risk-coverage curve: mean of the risk over the N coverages; less is better.

    Raises:
        EnsembleError: as ``risk_coverage``.
    """
    return risk_coverage(loss_N, doubt_N).mean().item()


def excess_aurc(loss_N: Tensor, doubt_N: Tensor) -> float:
    """The area above that of the best ranking, which doubts rows by their loss; from 0.

    Raises:
        EnsembleError: as ``risk_coverage``.
    """
    return aurc(loss_N, doubt_N) - aurc(loss_N, loss_N)


def _check(loss_N: Tensor, doubt_N: Tensor) -> None:
    if loss_N.ndim != 1 or loss_N.shape != doubt_N.shape or len(loss_N) == 0:
        raise EnsembleError(
            f"the losses have shape {list(loss_N.shape)} and the doubts {list(doubt_N.shape)}; "
            "both must be [rows], with at least one row."
        )
    if not (loss_N.isfinite().all() and doubt_N.isfinite().all()):
        raise EnsembleError("the losses and doubts are not all finite, so the rows cannot be ranked.")
