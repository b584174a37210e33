"""Metrics of rows that come a piece at a time: sums over groups of rows, however many rows there are.

Every metric that is a function of means over rows is exact. Its intervals are a bootstrap over the groups in place of
the rows: which group a row is in is a hash of its place, so a group is a random sample of the rows, and resampled
groups vary as resampled rows do.

Shapes: M predictions, N rows of a piece, G groups, S statistics of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.bootstrap import resampled_means
from ensemble_svc.evaluate.gain import Measured
from ensemble_svc.evaluate.metrics import METRICS
from ensemble_svc.evaluate.rows import Prediction

GROUPS = 1000
_MIX, _LAST = 0x45D9F3B, (1 << 32) - 1


class Tally:
    """What is known of the rows so far.

    Args:
        names: metrics; those that are no function of means over rows are left out.
        num_predictions: M, of every piece.
        bins: of the calibration errors.
        groups: of rows; 1 where no interval is wanted.
    """

    def __init__(
        self, names: Sequence[str], num_predictions: int, *, bins: int = 15, groups: int = GROUPS
    ) -> None:
        self.names = tuple(name for name in names if METRICS[name].resamples)
        self.rows = 0
        self._bins, self._num_predictions = bins, num_predictions
        self._count_G = torch.zeros(groups, dtype=torch.float64)
        self._sums_MGS: list[list[Tensor]] = []

    def add(self, predictions: Sequence[Prediction], target: Tensor) -> None:
        """Take in the next rows.

        Args:
            predictions: M of the same rows, as ``metrics.measure`` takes them.
        """
        if len(predictions) != self._num_predictions:
            raise EnsembleError(
                f"there are {len(predictions)} predictions; {self._num_predictions} are told."
            )
        at_N = torch.arange(self.rows, self.rows + len(target))
        group_N = _mixed(at_N) * len(self._count_G) >> 32
        self.rows += len(target)
        self._count_G += torch.bincount(group_N, minlength=len(self._count_G))
        found = [[self._sum(name, one, target, group_N) for name in self.names] for one in predictions]
        if not self._sums_MGS:
            self._sums_MGS = found
            return
        for known, new in zip(self._sums_MGS, found, strict=True):
            for sums_GS, more_GS in zip(known, new, strict=True):
                sums_GS += more_GS

    def point(self) -> dict[str, Tensor]:
        """Each metric of each prediction, [M], exact.

        Raises:
            EnsembleError: no rows.
        """
        self._check()
        return {
            name: METRICS[name].finish(torch.stack([s[i].sum(0) for s in self._sums_MGS]) / self.rows)
            for i, name in enumerate(self.names)
        }

    def measured(self, *, resamples: int, seed: int) -> Measured:
        """The metrics, and what they are on resamples of the groups.

        Raises:
            EnsembleError: no rows.
        """
        point = self.point()
        widths = [sums_GS.shape[1] for sums_GS in self._sums_MGS[0]]
        filled_G = self._count_G > 0
        tables = [torch.cat([*sums, self._count_G[:, None]], dim=1)[filled_G] for sums in self._sums_MGS]
        drawn_RMS = resampled_means(tables, num_resamples=resamples, seed=seed)
        means_RMS = drawn_RMS[..., :-1] / drawn_RMS[..., -1:]
        parts = zip(self.names, means_RMS.split(widths, dim=-1), strict=True)
        return Measured(point, {name: METRICS[name].finish(part) for name, part in parts})

    def _sum(self, name: str, prediction: Prediction, target: Tensor, group_N: Tensor) -> Tensor:
        rows_NS = METRICS[name].statistics(prediction, target, self._bins).cpu()
        return rows_NS.new_zeros(len(self._count_G), rows_NS.shape[1]).index_add_(0, group_N, rows_NS)

    def _check(self) -> None:
        if not self.rows:
            raise EnsembleError("there are no rows, so nothing can be measured.")


def _mixed(at_N: Tensor) -> Tensor:
    """32 bits that look random, of each place."""
    for _ in range(2):
        at_N = ((at_N >> 16) ^ at_N) * _MIX & _LAST
    return (at_N >> 16) ^ at_N
