"""The metrics that are no mean over rows, of rows that come a piece at a time.

Those that rank the rows need of each row how sure a prediction is of the class it says, and whether that is right: 5
bytes. Those that bin the probabilities need sums by class and bin. Law: the numbers are those of ``METRICS`` on all
rows, whatever the pieces and their order, to round-off.

Shapes: M predictions, N rows of a piece, C classes, B bins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ensemble_svc.evaluate.calibration_error import adaptive_gap, smooth_gap
from ensemble_svc.evaluate.rows import Prediction
from ensemble_svc.evaluate.selective import aurc, excess_aurc

RANKED: Mapping[str, Callable[[Tensor, Tensor, int], float]] = {
    "ece_adaptive": lambda sure_N, right_N, bins: adaptive_gap(sure_N.exp().clamp(max=1), right_N, bins),
    "ece_smooth": lambda sure_N, right_N, _: smooth_gap(
        sure_N.exp().clamp(max=1), right_N - sure_N.exp().clamp(max=1)
    ),
    "aurc": lambda sure_N, right_N, _: aurc(1 - right_N, -sure_N),
    "excess_aurc": lambda sure_N, right_N, _: excess_aurc(1 - right_N, -sure_N),
}
"""(log probability of the class that is said, whether it is the true one, bins) → the metric; both [N] float64."""


def _classwise(sums_3CB: Tensor, rows: int) -> float:
    return (sums_3CB[1] - sums_3CB[2]).abs().sum().item() / sums_3CB.shape[1] / rows


def _reliability(sums_3CB: Tensor, rows: int) -> float:
    count_CB, probability_CB, truth_CB = sums_3CB
    gap_CB = (probability_CB - truth_CB) / count_CB.clamp(min=1)
    return (count_CB / rows * gap_CB.square()).sum().item()


def _resolution(sums_3CB: Tensor, rows: int) -> float:
    count_CB, _, truth_CB = sums_3CB
    gap_CB = truth_CB / count_CB.clamp(min=1) - truth_CB.sum(dim=1, keepdim=True) / rows
    return (count_CB / rows * gap_CB.square()).sum().item()


BINNED: Mapping[str, Callable[[Tensor, int], float]] = {
    "ece_classwise": _classwise,
    "brier_reliability": _reliability,
    "brier_resolution": _resolution,
}
"""(rows, their probability and how many are of the class, by class and bin [3, C, B]; rows in all) → the metric."""


class Ranks:
    """What is known of the rows so far.

    Args:
        names: of ``RANKED`` and ``BINNED``; others are left out.
    """

    def __init__(self, names: Sequence[str], *, bins: int) -> None:
        self.names = tuple(names)
        self.rows = 0
        self.bytes = 0
        """That it holds of the rows."""
        self._bins = bins
        self._ranked = any(name in RANKED for name in names)
        self._binned = any(name in BINNED for name in names)
        self._sure: list[Tensor] = []
        self._right: list[Tensor] = []
        self._sums_M3CB: Tensor | None = None

    @property
    def left_out(self) -> tuple[str, ...]:
        """The metrics that cannot be told."""
        known = [*(RANKED if self._ranked else ()), *(BINNED if self._binned else ())]
        return tuple(name for name in self.names if name not in known)

    def add(self, predictions: Sequence[Prediction], target_N: Tensor) -> None:
        """Take in the next rows."""
        self.rows += len(target_N)
        if self._ranked:
            sure, said = zip(*(one["log_probs"].max(dim=-1) for one in predictions), strict=True)
            self._sure.append(torch.stack(sure).cpu())
            self._right.append(torch.stack([one_N == target_N for one_N in said]).cpu())
            self.bytes += self._sure[-1].nbytes + self._right[-1].nbytes
        if self._binned:
            each = [_sums_of(one["log_probs"], target_N, self._bins) for one in predictions]
            self._add_sums(torch.stack(each))

    def join(self, other: Ranks) -> None:
        """Take in what another knows, of the same metrics."""
        self.rows += other.rows
        if not other._ranked:
            self.forget()
        if self._ranked:
            self._sure += other._sure
            self._right += other._right
            self.bytes += other.bytes
        if other._sums_M3CB is not None:
            self._add_sums(other._sums_M3CB)

    def forget(self) -> None:
        """Let go what is held of each row: the metrics that rank the rows are left out from now on."""
        self._ranked, self._sure, self._right, self.bytes = False, [], [], 0

    def values(self) -> dict[str, Tensor]:
        """Each metric of each prediction, [M]."""
        found: dict[str, list[float]] = {name: [] for name in self.names if name not in self.left_out}
        if self._ranked and self._sure:
            self._sure, self._right = [torch.cat(self._sure, dim=1)], [torch.cat(self._right, dim=1)]
            for sure_N, right_N in zip(self._sure[0], self._right[0], strict=True):
                for name in found.keys() & RANKED.keys():
                    found[name].append(RANKED[name](sure_N.double(), right_N.double(), self._bins))
        if self._sums_M3CB is not None:
            for name in found.keys() & BINNED.keys():
                found[name] = [BINNED[name](sums_3CB, self.rows) for sums_3CB in self._sums_M3CB]
        return {name: torch.tensor(values, dtype=torch.float64) for name, values in found.items()}

    def _add_sums(self, sums_M3CB: Tensor) -> None:
        self._sums_M3CB = sums_M3CB if self._sums_M3CB is None else self._sums_M3CB + sums_M3CB


def _sums_of(log_probs_NC: Tensor, target_N: Tensor, bins: int) -> Tensor:
    """Rows, their probability and how many are of the class, by class and bin [3, C, B] float64."""
    num_classes = log_probs_NC.shape[1]
    probs_NC = log_probs_NC.double().exp()
    cell_NC = (probs_NC * bins).long().clamp_(max=bins - 1)
    at_NC = torch.arange(num_classes, device=cell_NC.device) * bins + cell_NC
    truth_N = at_NC.gather(1, target_N[:, None].long())[:, 0]
    size = num_classes * bins
    count = torch.bincount(at_NC.flatten(), minlength=size).double()
    probability = torch.bincount(at_NC.flatten(), weights=probs_NC.flatten(), minlength=size)
    truth = torch.bincount(truth_N, minlength=size).double()
    return torch.stack([count, probability, truth]).unflatten(1, (num_classes, bins)).cpu()
