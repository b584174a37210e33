"""The same metrics on parts of the rows: each class, or each value of a label that every row has.

A mean over all rows can hide a part on which the ensemble is bad. Laws: the parts' rows add up to all rows, and
the row-weighted mean of a per-row metric's parts is the metric of the whole.

Shapes: N examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.checks import check_prediction
from ensemble_svc.evaluate.metrics import Names, measure
from ensemble_svc.evaluate.rows import Prediction
from ensemble_svc.spec.job import Task


@dataclass(frozen=True)
class Slice:
    """One part of the rows."""

    label: str
    rows: int
    metrics: dict[str, float]


def by_slice(
    task: Task,
    prediction: Prediction,
    target: Tensor,
    label_N: Sequence[object],
    *,
    names: Names = "auto",
    bins: int = 15,
) -> tuple[Slice, ...]:
    """Metrics of the rows of each label, the labels in order of first appearance.

    Args:
        label_N: one per row, of anything that prints; equal text is the same slice.

    Raises:
        EnsembleError: not one label per row; as ``measure``.
    """
    check_prediction(task, prediction, target, who="the prediction")
    if len(label_N) != len(target):
        raise EnsembleError(f"there are {len(label_N)} labels for {len(target)} rows.")
    rows: dict[str, list[int]] = {}
    for row, label in enumerate(label_N):
        rows.setdefault(str(label), []).append(row)
    names = names if names == "auto" else tuple(names)
    return tuple(
        Slice(label, len(index), _measure_rows(task, prediction, target, index, names=names, bins=bins))
        for label, index in rows.items()
    )


def by_class(
    prediction: Prediction, target_N: Tensor, *, names: Names = "auto", bins: int = 15
) -> tuple[Slice, ...]:
    """Metrics of the rows of each true class, in order of the class numbers; classes without rows are left out.

    The accuracy of a class is its recall.

    Raises:
        EnsembleError: as ``measure``.
    """
    check_prediction("classification", prediction, target_N, who="the prediction")
    parts = by_slice("classification", prediction, target_N, target_N.tolist(), names=names, bins=bins)
    return tuple(sorted(parts, key=lambda part: int(part.label)))


def _measure_rows(
    task: Task, prediction: Prediction, target: Tensor, index: list[int], *, names: Names, bins: int
) -> dict[str, float]:
    rows = torch.tensor(index, device=target.device)
    part = {key: value[rows] for key, value in prediction.items()}
    return measure(task, part, target[rows], names=names, bins=bins)
