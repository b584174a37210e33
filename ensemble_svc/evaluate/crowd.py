"""The usual metrics of very many members at once, one member after another on the same few rows.

Only sums are kept: a few numbers of each member. Law: each metric is what ``metrics.measure`` says of the member's
whole prediction, to the round-off of float32 in its probabilities.

Nothing is allocated while members are scored: memory that was never touched costs more time than what is computed in
it. What is known of each row (one number, not C) is laid by for a few members and then worked on together, for calls
cost more than what they do to a few thousand numbers.

Shapes: K members, N rows, C classes, B bins, G members whose rows are laid by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError

TOGETHER = 8
"""Members whose rows are laid by before they are counted: G."""
NARROW = 48
"""With no more classes than this, rows are turned into columns before the largest is looked for."""
TIED = 0.5 + 1e-6
"""Two classes can share the largest probability only below this."""
CLOSE = 1e-5
"""A confidence so near an edge of the bins, in widths of a bin, is compared with the edge itself."""


class Sums(NamedTuple):
    """What some rows give each member."""

    rows: int
    parts_3K: Tensor
    """Rows that are right, negative log likelihood in nats, Brier score: float64."""
    gaps_KB: Tensor
    """Confidence less correctness in each bin, and in one more for a confidence of 1: float64."""


class Crowd:
    """Members that are scored one after another, on rows that come some at a time; one thread's own.

    Args:
        num_members: K.
        num_classes: C.
        most_rows: N at most.
        bins: of the calibration error.
    """

    def __init__(self, num_members: int, num_classes: int, most_rows: int, *, bins: int = 15) -> None:
        self._bins, self._num_members, self._num_classes = bins, num_members, num_classes
        self._largest = _Largest(num_classes, most_rows)
        self._most = torch.empty(5, TOGETHER * most_rows)
        self._wide = torch.empty(TOGETHER * most_rows, dtype=torch.float64)
        self._cell = torch.empty(TOGETHER * most_rows, dtype=torch.int64)
        self._edges = torch.linspace(0, 1, bins + 1, dtype=torch.float32)
        self._first_cell_G1 = torch.arange(TOGETHER)[:, None] * (bins + 1)
        self._members: list[int] = []

    def begin(self, target_N: Tensor) -> None:
        """Go on to other rows: their class numbers."""
        self._target_N, self._num_rows = target_N.long(), len(target_N)
        self._at_N = torch.arange(self._num_rows) * self._num_classes + self._target_N
        self._largest.begin(self._num_rows)
        self._laid_by_G3N = self._most[:3].view(-1)[: TOGETHER * 3 * self._num_rows].view(TOGETHER, 3, -1)
        self._parts_3K = torch.zeros(3, self._num_members, dtype=torch.float64)
        self._squares_K = torch.zeros(self._num_members)
        self._gaps_KB = torch.zeros(self._num_members, self._bins + 1, dtype=torch.float64)

    def score(self, member: int, log_probs_NC: Tensor, probs_NC: Tensor) -> Tensor:
        """Take in what a member says of the rows.

        Args:
            member: its position; each comes once.
            log_probs_NC: float32, contiguous.
            probs_NC: their exponentials, likewise.

        Returns:
            What each row's probabilities sum to, [N], until the next call; a row in which it is not 1 is no
            distribution, and then the sums mean nothing.
        """
        confidence_N, truth_N, log_truth_N = self._laid_by_G3N[len(self._members)].unbind()
        flat = probs_NC.view(-1)
        torch.index_select(log_probs_NC.view(-1), 0, self._at_N, out=log_truth_N)
        torch.index_select(flat, 0, self._at_N, out=truth_N)
        totals_N = self._largest.find(probs_NC, confidence_N)
        self._squares_K[member] = torch.dot(flat, flat)
        if self._largest.shared():
            self._settle(probs_NC, truth_N, confidence_N)
        self._members.append(member)
        if len(self._members) == TOGETHER:
            self._count()
        return totals_N

    def sums(self) -> Sums:
        """Of the rows since ``begin``."""
        self._count()
        num_rows = len(self._target_N)
        right_K, nll_K, truth_K = self._parts_3K
        brier_K = self._squares_K.double() - 2 * truth_K + num_rows
        return Sums(num_rows, torch.stack([right_K, nll_K, brier_K]), self._gaps_KB)

    def _settle(self, probs_NC: Tensor, truth_N: Tensor, confidence_N: Tensor) -> None:
        """Of equal classes the first is predicted: where the truth is a later one, it is made the less probable."""
        equal_N = ((truth_N >= confidence_N) & (confidence_N < TIED)).nonzero()[:, 0]
        later_N = equal_N[probs_NC[equal_N].argmax(dim=1) != self._target_N[equal_N]]
        truth_N[later_N] = truth_N[later_N].nextafter(torch.tensor(-1.0))

    def _count(self) -> None:
        """Add up what is laid by."""
        members, number = self._members, len(self._members)
        if not number:
            return
        confidence_GN, truth_GN, log_truth_GN = self._laid_by_G3N[:number].unbind(1)
        right_GN, work_GN = self._most[3:, : number * self._num_rows].view(2, number, -1)
        torch.ge(truth_GN, confidence_GN, out=right_GN)
        sums_3G = [right_GN.sum(dim=1), -log_truth_GN.sum(dim=1), truth_GN.sum(dim=1)]
        self._parts_3K[:, members] = torch.stack(sums_3G).double()
        cell = self._cells(confidence_GN.clamp_(max=1), work_GN)
        gap = self._wide[: number * self._num_rows]
        gap.copy_(torch.sub(confidence_GN, right_GN, out=right_GN).view(-1))
        gaps = torch.zeros(number * (self._bins + 1), dtype=torch.float64).scatter_add_(0, cell, gap)
        self._gaps_KB[members] = gaps.view(number, -1)
        self._members = []

    def _cells(self, confidence_GN: Tensor, work_GN: Tensor) -> Tensor:
        """The bin of each confidence, those of each member after those of the one before, [G x N].

        As ``binning.cells`` finds them by search, here by a product; those near an edge are mended by search.
        """
        torch.mul(confidence_GN, self._bins, out=work_GN)
        cell_GN = self._cell[: work_GN.numel()].view(work_GN.shape).copy_(work_GN)
        near = work_GN.sub_(work_GN.round()).abs_().lt(CLOSE).nonzero(as_tuple=True)
        cell_GN[near] = torch.bucketize(confidence_GN[near], self._edges, right=True) - 1
        return cell_GN.add_(self._first_cell_G1[: len(cell_GN)]).view(-1)


class _Largest:
    """The largest probability of each row.

    Over the last of few classes a reduction is slow, so the rows are turned: by a product with the identity, which is
    exact, and to which a row of ones adds the sums.
    """

    def __init__(self, num_classes: int, most_rows: int) -> None:
        self._narrow = num_classes <= NARROW
        self._turn = torch.cat([torch.eye(num_classes), torch.ones(1, num_classes)])
        self._columns = torch.empty((num_classes + 1) * most_rows if self._narrow else 0)
        self._equal = np.empty(num_classes * most_rows, dtype=np.bool_)

    def begin(self, num_rows: int) -> None:
        """Go on to other rows, so many."""
        columns = self._columns[: len(self._turn) * num_rows if self._narrow else 0]
        self._columns_XN = columns.view(len(self._turn), -1)
        self._total_N = self._columns_XN[-1]
        self._num_rows = num_rows

    def find(self, probs_NC: Tensor, confidence_N: Tensor) -> Tensor:
        """Fill in the confidences; returns what the rows sum to."""
        self._confidence = confidence_N.numpy()
        if self._narrow:
            torch.mm(self._turn, probs_NC.T, out=self._columns_XN)
            self._probs = self._columns_XN.numpy()[:-1]
            np.maximum.reduce(self._probs, axis=0, out=self._confidence)
            return self._total_N
        self._probs = probs_NC.numpy()
        torch.amax(probs_NC, 1, out=confidence_N)
        self._confidence = self._confidence[:, None]
        return probs_NC @ self._turn[-1]

    def shared(self) -> bool:
        """Whether some row found last has several classes that are largest."""
        equal = self._equal[: self._probs.size].reshape(self._probs.shape)
        np.equal(self._probs, self._confidence, out=equal)
        return int(np.count_nonzero(equal)) != self._num_rows


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
