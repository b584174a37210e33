"""Are the probabilities honest: how often the ensemble is right when it says that it is this sure.

Shapes: B bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_svc.report.figure import Figure, Numbers
from ensemble_svc.report.looks import look
from ensemble_svc.report.panel import Panel, Range
from ensemble_svc.report.text import is_number, number
from ensemble_svc.report.view import RunView

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bins:
    """A reliability diagram's numbers, those of bins without rows NaN."""

    count: Vector
    confidence: Vector
    accuracy: Vector

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Bins:
        """As they are stored."""
        return cls(*(_column(stored[name]) for name in ("count", "confidence", "accuracy")))

    @property
    def filled(self) -> npt.NDArray[np.bool_]:
        """Which of them have rows."""
        return (self.count > 0) & np.isfinite(self.confidence) & np.isfinite(self.accuracy)

    @property
    def error(self) -> float:
        """The calibration error: mean distance of confidence and accuracy, weighted by rows."""
        some = self.filled
        gaps = self.count[some] * np.abs(self.confidence[some] - self.accuracy[some])
        return float(gaps.sum() / max(1.0, self.count.sum()))


def draw(view: RunView, width: float) -> Figure | None:
    """Confidence against accuracy in bins, before and after a calibration, with the rows of each bin."""
    if not view.summary.get("reliability"):
        return None
    after, stored = Bins.of(view.summary["reliability"]), view.shown.get("reliability_before")
    before = Bins.of(stored) if stored else None
    panel = _panel(after, width)
    if before is not None:
        panel.line(before.confidence[before.filled], before.accuracy[before.filled], "before-line")
    _line(panel, after)
    legend = [("ensemble-line", "after calibration" if before else "ensemble")]
    legend += [("before-line", "before it")] if before else []
    legend += [("guide", "perfectly calibrated"), ("count-bar", "share of rows")]
    title = "Reliability before and after calibration" if before else "Reliability of the ensemble"
    caption = _honesty(view, before)
    return Figure(title, panel.drawing.markup(), caption, tuple(legend), numbers=_numbers(after))


def _column(values: Any) -> Vector:
    return np.array([np.nan if v is None else float(v) for v in values])


def _panel(bins: Bins, width: float) -> Panel:
    unit = Range(0, 1, factor=100)
    panel = Panel(
        unit,
        unit,
        label="Reliability diagram: accuracy against confidence",
        x_label="confidence %",
        y_label="Accuracy %",
        width=width,
        tall=True,
    )
    _rows_per_bin(panel, bins.count)
    panel.line([0, 1], [0, 1], "guide")
    return panel


def _line(panel: Panel, bins: Bins) -> None:
    filled = bins.filled
    share = bins.count / max(1.0, bins.count.sum())
    each = list(zip(bins.confidence[filled], bins.accuracy[filled], share[filled], strict=True))
    for x, y, _ in each:
        panel.pen.line(panel.at(x, x), panel.at(x, y), "gap-line")
    panel.line(bins.confidence[filled], bins.accuracy[filled], "ensemble-line")
    for x, y, part in each:
        shown = (number(100 * value, 1) for value in (x, y, part))
        tip = "confidence {} %, accuracy {} %, {} % of rows".format(*shown)
        panel.pen.dot(panel.at(x, y), 2 + 5 * part**0.5, "ensemble-dot", tip)


def _rows_per_bin(panel: Panel, count: Vector) -> None:
    base = panel.top + panel.inner_height
    width = panel.inner_width / len(count)
    tallest = max(1.0, float(count.max()))
    for position, rows in enumerate(count.tolist()):
        if rows:
            tall = 0.22 * panel.inner_height * rows / tallest
            corner = (panel.left + position * width + 1, base - tall)
            panel.pen.box(corner, width - 2, tall, "count-bar", f"{rows:,.0f} rows")


def _honesty(view: RunView, before: Bins | None) -> str:
    face, ensemble = look("ece"), view.summary["ensemble"].get("ece")
    mean = view.summary.get("members", {}).get("mean", {}).get("ece")
    sides = "Below the diagonal it is over-confident, above it too modest."
    error = Bins.of(view.summary["reliability"]).error if not is_number(ensemble) else ensemble
    parts = [f"Calibration error {face.show(error, 1)}"]
    parts += [f"{face.show(before.error, 1)} before the calibration"] if before else []
    parts += [f"mean member {face.show(mean, 1)}"] if is_number(mean) else []
    return f"{sides} {'; '.join(parts)}."


def _numbers(bins: Bins) -> Numbers:
    some = np.flatnonzero(bins.filled)
    rows = [
        (number(100 * bins.confidence[b], 1), number(100 * bins.accuracy[b], 1), f"{bins.count[b]:,.0f}")
        for b in some
    ]
    return Numbers.of(("confidence %", "accuracy %", "rows"), rows)
