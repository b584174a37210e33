"""What one prediction gains over others on the same rows, with paired bootstrap intervals.

A gain is positive when ours is better, whichever way the metric runs. It is measured against the mean of the
metrics of a group of rivals: all members (what one more training would be expected to give), one member chosen
on other rows, a single network of the same cost, another run. All are measured on the same draws of the
rows, so what all find hard cancels.

Memory: 8 bytes x rows x predictions x (bins + 5) for classification, and the bootstrap's chunk.

Shapes: N examples, R resamples, M predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.bootstrap import percentile_interval, resampled_means
from ensemble_svc.evaluate.checks import check_prediction
from ensemble_svc.evaluate.metrics import METRICS, Names, applicable
from ensemble_svc.evaluate.rows import Prediction
from ensemble_svc.spec.job import Task

Gains = dict[str, dict[str, float | None]]
"""``{metric: {"estimate", "low", "high"}}``; the ends are None where a metric is no function of means over rows."""


@dataclass(frozen=True)
class Measured:
    """Metrics of several predictions on the same rows, and on resamples of them."""

    point: Mapping[str, Tensor]
    """By metric, [M]."""
    resampled: Mapping[str, Tensor]
    """By metric, [R, M]; without those that are no function of means over rows."""

    def gains(self, ours: int, against: Sequence[int], confidence: float) -> Gains:
        """The improvement of prediction ``ours`` on the mean metric of those ``against``.

        A gain between two infinite values is NaN.
        """
        rivals = list(against)
        gains: Gains = {}
        for name, values_M in self.point.items():
            sign = METRICS[name].sign
            estimate = sign * (values_M[ours] - values_M[rivals].mean()) + 0.0  # no minus zero
            if name not in self.resampled:
                gains[name] = {"estimate": estimate.item(), "low": None, "high": None}
                continue
            resampled_RM = self.resampled[name]
            gains_R = sign * (resampled_RM[:, ours] - resampled_RM[:, rivals].mean(dim=1)) + 0.0
            if not METRICS[name].per_row:  # a resample's repeats bias what is no mean over rows
                gains_R = gains_R + (estimate - gains_R.mean())
            low, high = percentile_interval(gains_R, confidence)
            gains[name] = {"estimate": estimate.item(), "low": low, "high": high}
        return gains


def measure_together(
    predictions: Sequence[Prediction],
    target: Tensor,
    names: Sequence[str],
    *,
    bins: int,
    resamples: int,
    seed: int,
) -> Measured:
    """Each metric of each prediction on the rows as they are and on every resample.

    Args:
        predictions: checked (``checks.check_prediction``), of the same rows.
        names: metrics that all of them allow.
        bins: of the calibration error.
        resamples: number of them.
        seed: of the draws, which depend on it and the number of rows alone.
    """
    drawn = [name for name in names if METRICS[name].resamples]
    blocks = [
        [METRICS[name].statistics(prediction, target, bins).cpu() for name in drawn]
        for prediction in predictions
    ]
    widths = [block.shape[1] for block in blocks[0]]
    means = [[block.mean(dim=0) for block in of_one] for of_one in blocks]
    known = {name: METRICS[name].finish(torch.stack([m[i] for m in means])) for i, name in enumerate(drawn)}
    point = {
        name: known[name] if name in known else _of_all(name, predictions, target, bins) for name in names
    }
    if not drawn:
        return Measured(point, {})
    statistics = [torch.cat(blocks.pop(0), dim=1) for _ in predictions]
    means_RMS = resampled_means(statistics, num_resamples=resamples, seed=seed)
    parts = zip(drawn, means_RMS.split(widths, dim=-1), strict=True)
    return Measured(point, {name: METRICS[name].finish(part) for name, part in parts})


def _of_all(name: str, predictions: Sequence[Prediction], target: Tensor, bins: int) -> Tensor:
    values = [METRICS[name].value(prediction, target, bins) for prediction in predictions]
    return torch.tensor(values, dtype=torch.float64)


def gain_over(
    task: Task,
    ours: Prediction,
    rivals: Mapping[str, Sequence[Prediction]],
    target: Tensor,
    *,
    names: Names = "auto",
    bins: int = 15,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int,
) -> dict[str, Gains]:
    """Gains over each group of rivals, by its name.

    Args:
        ours: as ``metrics.measure`` takes it.
        rivals: groups of one or more predictions of the same rows; a gain is over the mean of their metrics.
        names: metrics; ``auto`` for all that every prediction allows.
        confidence: that the intervals are meant to have.
        seed: of the bootstrap's draws.

    Raises:
        EnsembleError: predictions and targets that do not belong together (the rival is named); a group
            without predictions.
    """
    everyone, groups = [ours], {}
    check_prediction(task, ours, target, who="our prediction")
    for group, predictions in rivals.items():
        if not predictions:
            raise EnsembleError(f"'{group}' has no predictions to compare with.")
        for i, prediction in enumerate(predictions):
            check_prediction(task, prediction, target, who=f"'{group}', prediction {i}")
        groups[group] = range(len(everyone), len(everyone) + len(predictions))
        everyone += predictions
    chosen = tuple(dict.fromkeys(applicable(task, ours, names)))
    for prediction in everyone[1:]:
        allowed = applicable(task, prediction, "auto" if names == "auto" else chosen)
        chosen = tuple(name for name in chosen if name in allowed)
    measured = measure_together(everyone, target, chosen, bins=bins, resamples=resamples, seed=seed)
    return {group: measured.gains(0, against, confidence) for group, against in groups.items()}
