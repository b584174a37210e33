"""Metrics of rows that come a piece at a time: sums over groups of rows, however many rows there are.

Every metric that is a function of means over rows is exact; of the others something is kept of each row
(``ranks``). Its intervals are a bootstrap over the groups in place of
the rows: which group a row is in is a hash of its place, so a group is a random sample of the rows, and resampled
groups vary as resampled rows do. Law: tallies of parts of the rows, joined in any order, are that of all of them.

Shapes: M predictions, N rows of a piece, G groups, S statistics of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.bootstrap import resampled_means
from ensemble_svc.evaluate.classed import KNOWN, group_sums
from ensemble_svc.evaluate.gain import Measured
from ensemble_svc.evaluate.metrics import METRICS
from ensemble_svc.evaluate.places import row_keys
from ensemble_svc.evaluate.ranks import Ranks
from ensemble_svc.evaluate.rows import Prediction

GROUPS = 1000
_EMPTY = "there are no rows, so nothing can be measured."


class Tally:
    """What is known of the rows so far.

    Args:
        names: metrics.
        num_predictions: M, of every piece.
        bins: of the calibration errors.
        groups: of rows; 1 where no interval is wanted.
    """

    def __init__(
        self, names: Sequence[str], num_predictions: int, *, bins: int = 15, groups: int = GROUPS
    ) -> None:
        self.names = tuple(name for name in names if METRICS[name].resamples)
        self.ranks = Ranks([name for name in names if name not in self.names], bins=bins)
        """Of the metrics that are no function of means over rows."""
        self.rows = 0
        self._asked = tuple(names)
        self._bins, self._num_predictions = bins, num_predictions
        self._count_G = torch.zeros(groups, dtype=torch.float64)
        self._widths: list[int] = []
        self._sums_GX: Tensor | None = None

    def add(self, predictions: Sequence[Prediction], target: Tensor, key_N: Tensor | None = None) -> None:
        """Take in the next rows.

        Args:
            predictions: M of the same rows, as ``metrics.measure`` takes them.
            key_N: of the rows (``places.row_keys``); of rows that follow those before when absent.
        """
        if len(predictions) != self._num_predictions:
            raise EnsembleError(
                f"there are {len(predictions)} predictions; {self._num_predictions} are told."
            )
        key_N = row_keys(0, self.rows, len(target)) if key_N is None else key_N
        group_N = (key_N >> 31) * len(self._count_G) >> 32
        self.rows += len(target)
        self._count_G += torch.bincount(group_N, minlength=len(self._count_G))
        if self.ranks.names:
            self.ranks.add(predictions, target)
        if not self.names:
            return
        sums_GX = self._summed(predictions, target, group_N)
        self._sums_GX = sums_GX if self._sums_GX is None else self._sums_GX.add_(sums_GX)

    def join(self, other: Tally) -> None:
        """Take in another's sums, of the same metrics of as many predictions.

        Raises:
            EnsembleError: of others.
        """
        if (self._asked, self._num_predictions) != (other._asked, other._num_predictions):
            raise EnsembleError("sums of other metrics or of another number of predictions cannot be joined.")
        self.rows += other.rows
        self._count_G += other._count_G
        self.ranks.join(other.ranks)
        if other._sums_GX is None:
            return
        self._widths = other._widths
        self._sums_GX = other._sums_GX if self._sums_GX is None else self._sums_GX + other._sums_GX

    def point(self) -> dict[str, Tensor]:
        """Each metric of each prediction, [M], exact; without those of ``ranks.left_out``.

        Raises:
            EnsembleError: no rows.
        """
        if not self.rows:
            raise EnsembleError(_EMPTY)
        found = self.ranks.values()
        if self.names:
            found |= self._finished(self._sums_MGS().sum(1) / self.rows)
        return {name: found[name] for name in self._asked if name in found}

    def measured(self, *, resamples: int, seed: int) -> Measured:
        """The metrics, and what they are on resamples of the groups.

        Raises:
            EnsembleError: no rows.
        """
        if not self.names:
            return Measured(self.point(), {})
        filled_G = self._count_G > 0
        tables = [
            torch.cat([sums_GS, self._count_G[:, None]], dim=1)[filled_G] for sums_GS in self._sums_MGS()
        ]
        drawn_RMS = resampled_means(tables, num_resamples=resamples, seed=seed)
        return Measured(self.point(), self._finished(drawn_RMS[..., :-1] / drawn_RMS[..., -1:]))

    def _summed(self, predictions: Sequence[Prediction], target: Tensor, group_N: Tensor) -> Tensor:
        """What the rows of each group contribute to all metrics of all predictions, [G, M x S]."""
        groups = len(self._count_G)
        if all("log_probs" in one for one in predictions) and KNOWN.issuperset(self.names):
            each = [
                group_sums(self.names, one["log_probs"], target, group_N, groups=groups, bins=self._bins)
                for one in predictions
            ]
            self._widths = each[0][0]
            return torch.cat([sums_GS for _, sums_GS in each], dim=1)
        rows_NX = torch.cat([self._statistics(one, target) for one in predictions], dim=1)
        return rows_NX.new_zeros(groups, rows_NX.shape[1]).index_add_(0, group_N, rows_NX)

    def _statistics(self, prediction: Prediction, target: Tensor) -> Tensor:
        """What each row contributes to all metrics, [N, S]."""
        each = [METRICS[name].statistics(prediction, target, self._bins).cpu() for name in self.names]
        self._widths = [part.shape[1] for part in each]
        return torch.cat(each, dim=1)

    def _sums_MGS(self) -> Tensor:
        if self._sums_GX is None:
            raise EnsembleError(_EMPTY)
        return self._sums_GX.unflatten(1, (self._num_predictions, -1)).transpose(0, 1)

    def _finished(self, means: Tensor) -> dict[str, Tensor]:
        """The metrics by name from means [..., S]."""
        parts = zip(self.names, means.split(self._widths, dim=-1), strict=True)
        return {name: METRICS[name].finish(part) for name, part in parts}
