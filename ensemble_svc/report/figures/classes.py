"""Classification: are the probabilities honest, which rows to trust, what is mistaken for what.

Shapes: K members, N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_svc.report.drawing import Drawing
from ensemble_svc.report.figure import Figure
from ensemble_svc.report.looks import look
from ensemble_svc.report.panel import HALF, THIRD, Panel, Range
from ensemble_svc.report.text import clean, is_number, number
from ensemble_svc.report.view import RunView

CELLS_UP_TO = 25
"""Classes beyond which the confusion matrix would be too fine to read."""

NARROW_UP_TO = 10
"""Classes beyond which it takes a line of the page to itself."""

Vector = npt.NDArray[np.float64]


def draw(view: RunView, log_probs_KNC: npt.NDArray[Any], target_N: npt.NDArray[np.int64]) -> list[Figure]:
    """All that is known of the probabilities on the split that reports."""
    probs_NC = mixture(log_probs_KNC)
    width = THIRD if probs_NC.shape[1] <= NARROW_UP_TO else HALF
    drawn = (
        reliability(view, width),
        trust(probs_NC, target_N, width),
        confusion(probs_NC, target_N, view.classes) if probs_NC.shape[1] <= CELLS_UP_TO else None,
    )
    return [figure for figure in drawn if figure is not None]


def reliability(view: RunView, width: float) -> Figure | None:
    """Confidence against accuracy in bins, with the share of rows in each bin."""
    bins = view.summary.get("reliability")
    if not bins:
        return None
    count, confidence, accuracy = (_column(bins, name) for name in ("count", "confidence", "accuracy"))
    unit = Range(0, 1, factor=100)
    panel = Panel(
        unit,
        unit,
        label="Reliability diagram",
        x_label="confidence %",
        y_label="Accuracy %",
        width=width,
        tall=True,
    )
    _rows_per_bin(panel, count)
    panel.line([0, 1], [0, 1], "guide")
    filled = (count > 0) & np.isfinite(confidence) & np.isfinite(accuracy)
    for x, y in zip(confidence[filled], accuracy[filled], strict=True):
        panel.pen.line(panel.at(x, x), panel.at(x, y), "gap-line")
    panel.line(confidence[filled], accuracy[filled], "ensemble-line")
    share = count / max(1.0, count.sum())
    for x, y, part in zip(confidence[filled], accuracy[filled], share[filled], strict=True):
        tip = f"confidence {number(100 * x, 1)} %, accuracy {number(100 * y, 1)} %, {number(100 * part, 1)} % of rows"
        panel.pen.dot(panel.at(x, y), 2 + 5 * part**0.5, "ensemble-dot", tip)
    legend = (
        ("ensemble-line", "ensemble"),
        ("guide", "perfectly calibrated"),
        ("count-bar", "share of rows"),
    )
    return Figure("Reliability of the ensemble", panel.drawing.markup(), _honesty(view), legend)


def _column(bins: Any, name: str) -> Vector:
    values = bins[name] if isinstance(bins, Mapping) else [row[name] for row in bins]
    return np.array([np.nan if v is None else float(v) for v in values])


def _rows_per_bin(panel: Panel, count: Vector) -> None:
    base = panel.top + panel.inner_height
    width = panel.inner_width / len(count)
    tallest = max(1.0, float(count.max()))
    for position, rows in enumerate(count.tolist()):
        tall = 0.22 * panel.inner_height * rows / tallest
        corner = (panel.left + position * width + 1, base - tall)
        panel.pen.box(corner, width - 2, tall, "count-bar", f"{rows:,.0f} rows")


def _honesty(view: RunView) -> str:
    ensemble, mean = (
        view.summary["ensemble"].get("ece"),
        view.summary.get("members", {}).get("mean", {}).get("ece"),
    )
    sides = "Below the diagonal it is over-confident, above it too modest."
    if not (is_number(ensemble) and is_number(mean)):
        return sides
    return (
        f"{sides} Calibration error {look('ece').show(ensemble, 1)}; mean member {look('ece').show(mean, 1)}."
    )


def mixture(log_probs_KNC: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The members' mean probability, [N, C]."""
    total = np.zeros(log_probs_KNC.shape[1:])
    for member in log_probs_KNC:
        total += np.exp(member.astype(np.float64))
    return total / len(log_probs_KNC)


def confusion(probs_NC: Vector, target_N: npt.NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """True against predicted class, as shares of each true class."""
    num_classes = probs_NC.shape[1]
    table = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(table, (target_N, probs_NC.argmax(1)), 1)
    names = [clean(classes[c], limit=12) if c < len(classes) else str(c) for c in range(num_classes)]
    drawing = _matrix(table, names)
    caption, wide = _worst_pair(table, names), num_classes > NARROW_UP_TO
    return Figure("What is mistaken for what", drawing.markup(), caption, wide=wide)


def _matrix(table: npt.NDArray[np.int64], names: Sequence[str]) -> Drawing:
    size, left = (THIRD, 82.0) if len(names) <= NARROW_UP_TO else (760.0, 110.0)
    cell = min(84.0 if len(names) < 5 else 40.0, (size - left - 46) / len(names))
    room = max(1, int(cell / 6.4))
    steep = max(map(len, names)) > room
    left, top = (
        (left if steep or max(map(len, names)) > 3 else 40.0),
        36.0 + 7 * min(7, max(map(len, names))) * steep,
    )
    drawing = Drawing(size, top + cell * len(names) + 12, "Confusion matrix")
    drawing.text((left, 11), "predicted", "axis-label")
    drawing.text((2, 11), "true", "axis-label")
    for i, name in enumerate(names):
        drawing.text((left - 7, top + (i + 0.5) * cell + 4), name, "tick", "end")
        at = (left + (i + 0.5) * cell + 4 * steep, top - 7)
        drawing.text(at, name, "tick", "start" if steep else "middle", turn=-52 if steep else 0)
    for row, column in np.ndindex(table.shape):
        _cell(drawing, table, names, (row, column), (left + column * cell, top + row * cell), cell)
    return drawing


def _cell(
    d: Drawing,
    table: npt.NDArray[np.int64],
    names: Sequence[str],
    at: tuple[int, int],
    corner: tuple[float, float],
    cell: float,
) -> None:
    row, column = at
    rows = int(table[row, column])
    share = rows / max(1, int(table[row].sum()))
    level = 0 if rows == 0 else 1 + min(4, int(share * 5))
    kind = "right" if row == column else "wrong" if rows else "right"
    tip = f"{names[row]} taken for {names[column]}: {rows:,} rows, {number(100 * share, 1)} % of {names[row]}"
    d.box(corner, cell - 1.5, cell - 1.5, f"cell {kind}-{level}", tip, round_=2)
    if rows and cell >= 15:
        word = f"{rows:,}" if len(str(rows)) * 6.5 < cell - 2 else f"{100 * share:.0f}%"
        d.text(
            (corner[0] + cell / 2 - 0.7, corner[1] + cell / 2 + 3.4),
            word,
            f"cell-text on-{kind}-{level}",
            "middle",
        )


def _worst_pair(table: npt.NDArray[np.int64], names: Sequence[str]) -> str:
    wrong = table - np.diag(np.diag(table))
    total = int(wrong.sum())
    if total == 0:
        return "Rows by true and predicted class. No row is mistaken."
    row, column = divmod(int(wrong.argmax()), len(names))
    return (
        f"Rows by true and predicted class; {total:,} of {int(table.sum()):,} mistaken, "
        f"most often {names[row]} taken for {names[column]} ({int(wrong[row, column]):,})."
    )


def trust(probs_NC: Vector, target_N: npt.NDArray[np.int64], width: float) -> Figure | None:
    """Accuracy of the rows that are kept when the least certain are handed to someone else."""
    num_rows = len(target_N)
    if num_rows < 20:
        return None
    entropy_N = -(probs_NC * np.log(np.clip(probs_NC, 1e-30, None))).sum(1)
    right_N = (probs_NC.argmax(1) == target_N)[np.argsort(entropy_N, kind="stable")]
    kept = np.arange(1, num_rows + 1)
    accuracy = np.cumsum(right_N) / kept
    pick = np.unique(np.linspace(max(10, num_rows // 20), num_rows, 120).round().astype(int)) - 1
    height = Range.over([*accuracy[pick], 1.0], factor=100, within=(0, 1))
    panel = Panel(
        Range(0, 1, factor=100),
        height,
        width=width,
        tall=True,
        label="Accuracy of the most certain rows",
        x_label="rows kept, most certain first %",
        y_label="Accuracy %",
    )
    panel.line(kept[pick] / num_rows, accuracy[pick], "ensemble-line")
    panel.dots([1.0], [accuracy[-1]], "ensemble-dot", 3.5)
    return Figure(
        "Does it know when it does not know?",
        panel.drawing.markup(),
        _refused(right_N, accuracy),
        (("ensemble-line", "ensemble, rows ordered by predictive entropy"),),
    )


def _refused(right_N: npt.NDArray[np.bool_], accuracy: Vector) -> str:
    if right_N.all():
        return "Every row is right, so there is nothing to set aside."
    most = len(right_N) - len(right_N) // 10
    before, after = number(100 * accuracy[-1], 1), number(100 * accuracy[most - 1], 1)
    return f"Setting aside the least certain tenth moves accuracy from {before} % to {after} %."
