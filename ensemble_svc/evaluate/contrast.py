"""Predictions of the same rows by several ensembles, side by side, with paired intervals of their differences.

Shapes: N examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ensemble_svc.evaluate.checks import check_prediction
from ensemble_svc.evaluate.gain import measure_together
from ensemble_svc.evaluate.metrics import applicable
from ensemble_svc.evaluate.rows import Prediction
from ensemble_svc.spec.job import EvaluateSpec, Task


def contrast(
    task: Task, predictions: Sequence[Prediction], target: Tensor, *, spec: EvaluateSpec, seed: int
) -> list[dict[str, Any]]:
    """Each prediction's metrics, and what it gains over the first; above 0 is an improvement.

    Args:
        predictions: of the same N rows.
        spec: metrics (those that all of them allow), bins, resamples, confidence.
        seed: of the bootstrap's draws.

    Returns:
        For each ``{"metrics": {metric: value}, "gain": {metric: {estimate, low, high}}}``; the first one's gain is
        empty.

    Raises:
        EnsembleError: predictions and targets that do not belong together.
    """
    for number, prediction in enumerate(predictions, 1):
        check_prediction(task, prediction, target, who=f"ensemble {number}")
    every = [applicable(task, prediction, spec.metrics) for prediction in predictions]
    names = [name for name in every[0] if all(name in some for some in every)]
    measured = measure_together(
        predictions, target, names, bins=spec.bins, resamples=spec.resamples, seed=seed
    )
    return [
        {
            "metrics": {name: values[k].item() for name, values in measured.point.items()},
            "gain": measured.gains(k, [0], spec.confidence) if k else {},
        }
        for k in range(len(predictions))
    ]
