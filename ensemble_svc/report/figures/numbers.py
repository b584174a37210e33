"""Regression: predictions against the truth, and whether the intervals cover what they claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ensemble_svc.report.figure import Figure, Numbers
from ensemble_svc.report.panel import Panel, Range
from ensemble_svc.report.text import clean, is_number, number
from ensemble_svc.report.view import RunView

BARS_UP_TO = 250
"""Rows beyond which their deviations are not drawn."""


def draw(view: RunView, width: float) -> list[Figure]:
    """Predicted against true for each target, then the coverage of the intervals."""
    drawn: Sequence[Mapping[str, Any]] = view.shown.get("scatter") or ()
    rows = view.exhibits.get("rows") or 0
    figures = [_scatter(one, _target(view, t), rows, width) for t, one in enumerate(drawn)]
    if view.shown.get("coverage"):
        figures.append(_coverage(view.shown["coverage"], rows, width))
    return figures


def _target(view: RunView, number: int) -> str:
    return clean(view.targets[number], limit=40) if number < len(view.targets) else f"target {number}"


def _scatter(one: Mapping[str, Any], name: str, rows: int, width: float) -> Figure:
    truth, mean, spread = (np.asarray(one[key], dtype=np.float64) for key in ("truth", "mean", "spread"))
    both = Range.over([*mean, *truth])
    panel = Panel(
        both,
        both,
        label=f"Predicted against true {name}",
        x_label=f"true {name}",
        y_label=f"Predicted {name}",
        width=width,
        tall=True,
    )
    panel.line([both.low, both.high], [both.low, both.high], "guide")
    bars = bool(spread.any()) and len(truth) <= BARS_UP_TO
    for x, y, std in zip(truth, mean, spread, strict=True) if bars else ():
        panel.pen.line(panel.at(x, y - std), panel.at(x, y + std), "spread-line")
    panel.dots(truth, mean, "point-dot", 2.6 if len(truth) <= 400 else 1.8)
    marks = [("point-dot", "a row"), ("guide", "predicted = true")]
    marks += [("spread-line", "± one standard deviation")] if bars else []
    numbers = Numbers.of(
        ("true", "predicted", "± deviation"),
        [tuple(number(v) for v in line) for line in zip(truth, mean, spread, strict=True)],
        spread=True,
    )
    title = f"Predicted against true {name}"
    return Figure(
        title, panel.drawing.markup(), _explained(one, len(truth), rows), tuple(marks), numbers=numbers
    )


def _explained(one: Mapping[str, Any], drawn: int, rows: int) -> str:
    if not is_number(one["explained"]):
        return ""
    some = f"; {drawn:,} of them are drawn" if drawn < rows else ""
    return f"R² = {number(one['explained'], 3)} over {rows:,} rows{some}."


def _coverage(found: Mapping[str, Any], rows: int, width: float) -> Figure:
    levels, ensemble = found["levels"], found["ensemble"]
    panel = Panel(
        Range(0, 1, factor=100),
        Range(0, 1, factor=100),
        label="Coverage of prediction intervals",
        x_label="claimed coverage %",
        y_label="Rows inside %",
        width=width,
        tall=True,
    )
    panel.line([0, 1], [0, 1], "guide")
    for member in found["members"] if len(found["members"]) > 1 else ():
        panel.line(levels, member, "member-line")
    panel.line(levels, ensemble, "ensemble-line")
    panel.dots(levels, ensemble, "ensemble-dot", 3)
    at_90 = float(np.interp(0.9, levels, ensemble))
    slack = max(0.03, 2 * (0.9 * 0.1 / max(1, rows)) ** 0.5)
    verdict = "too wide" if at_90 > 0.9 + slack else "too narrow" if at_90 < 0.9 - slack else "as they should"
    held = f"Those that claim 90 % hold {number(100 * at_90, 1)} % of the rows: {verdict}."
    marks = (("ensemble-line", "ensemble"), ("member-line", "a member"), ("guide", "as claimed"))
    inside = [(number(100 * a, 0), number(100 * b, 1)) for a, b in zip(levels, ensemble, strict=True)]
    return Figure(
        "Do the intervals cover what they claim?",
        panel.drawing.markup(),
        f"Central intervals of the mixture. {held}",
        marks,
        numbers=Numbers.of(("claimed %", "rows inside %"), inside, spread=True),
    )
