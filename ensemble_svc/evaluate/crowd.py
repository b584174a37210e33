"""The usual metrics of very many members at once, from rows that come a piece at a time.

Only sums are kept: a few numbers of each member. Law: each metric is what ``metrics.measure`` says of the member's
whole prediction, to the round-off of float32 in its probabilities.

Shapes: K members, N rows of a piece, C classes, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError

TIED = 0.5 + 1e-6
"""Two classes can share the largest probability only below this."""


class Sums(NamedTuple):
    """What the rows of a piece give each member."""

    rows: int
    parts_3K: Tensor
    """Rows that are right, negative log likelihood in nats, Brier score: float64."""
    gaps_KB: Tensor
    """Confidence less correctness in each bin, and in one more for a confidence of 1: float64."""


def member_sums(log_probs_KNC: Tensor, probs_KNC: Tensor, target_N: Tensor, *, bins: int = 15) -> Sums:
    """Sums over the rows of a piece.

    Args:
        log_probs_KNC: checked, float32.
        probs_KNC: their exponentials.
        target_N: class numbers.
        bins: of the calibration error.
    """
    num_members, num_rows = log_probs_KNC.shape[:2]
    at_KN1 = target_N.expand(num_members, -1)[:, :, None]
    truth_KN = probs_KNC.gather(2, at_KN1)[:, :, 0]
    confidence_KN = probs_KNC.amax(dim=2)
    right_KN = _right(probs_KNC, truth_KN, confidence_KN, target_N)
    squares_KN = (probs_KNC * probs_KNC) @ probs_KNC.new_ones(probs_KNC.shape[2])
    nll_K = -log_probs_KNC.gather(2, at_KN1)[:, :, 0].sum(dim=1, dtype=torch.float64)
    brier_K = (squares_KN - 2 * truth_KN).sum(dim=1, dtype=torch.float64) + num_rows
    confidence_KN.clamp_(max=1)
    cell_KN = _cells(confidence_KN, bins)
    gaps_KB = torch.zeros(num_members, bins + 1, dtype=torch.float64)
    gaps_KB.scatter_add_(1, cell_KN, (confidence_KN - right_KN).double())
    parts_3K = torch.stack([right_KN.sum(dim=1, dtype=torch.float64), nll_K, brier_K])
    return Sums(num_rows, parts_3K, gaps_KB)


def member_metrics(pieces: Sequence[Sums]) -> dict[str, Tensor]:
    """``accuracy``, ``nll``, ``brier`` and ``ece`` of each member over the rows of all pieces, [K] float64.

    Raises:
        EnsembleError: no rows.
    """
    rows = sum(piece.rows for piece in pieces)
    if not rows:
        raise EnsembleError("there are no rows, so nothing can be measured.")
    accuracy_K, nll_K, brier_K = torch.stack([piece.parts_3K for piece in pieces]).sum(dim=0) / rows
    gaps_KB = torch.stack([piece.gaps_KB for piece in pieces]).sum(dim=0) / rows
    return {"accuracy": accuracy_K, "nll": nll_K, "brier": brier_K, "ece": gaps_KB.abs().sum(dim=1)}


def _right(probs_KNC: Tensor, truth_KN: Tensor, confidence_KN: Tensor, target_N: Tensor) -> Tensor:
    """1 where the true class is the most probable one, of equals the first."""
    right_KN = truth_KN >= confidence_KN
    doubtful = (right_KN & (confidence_KN < TIED)).nonzero(as_tuple=True)
    right_KN[doubtful] = probs_KNC[doubtful].argmax(dim=-1) == target_N[doubtful[1]]
    return right_KN.float()


def _cells(confidence_KN: Tensor, bins: int) -> Tensor:
    """As ``binning.calibration`` finds them by search, here by a product that may be off by one, then mended."""
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float32)
    cell_KN = (confidence_KN * bins).long()
    cell_KN -= (confidence_KN < edges[cell_KN]).long()
    above = torch.cat([edges[1:], torch.tensor([torch.inf])])
    return cell_KN.add_((confidence_KN >= above[cell_KN]).long())
