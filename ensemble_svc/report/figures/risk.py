"""Does it know when it does not know: the loss of the rows that are kept when the least certain are set aside.

Shapes: P points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ensemble_svc.report.figure import Figure, Numbers
from ensemble_svc.report.looks import Look
from ensemble_svc.report.panel import Panel, Range, Values
from ensemble_svc.report.text import number
from ensemble_svc.report.view import RunView

ERROR_RATE = Look("error", "Error rate", factor=100.0, unit="%")
SQUARED = Look("squared_error", "RMSE")
BEST = {"Error rate": "errors", "RMSE": "large errors"}


def draw(view: RunView, width: float) -> Figure | None:
    """The risk-coverage curve; None where nothing was there to rank rows by."""
    found: Mapping[str, Any] | None = view.shown.get("risk")
    if not found or len(found["coverage"]) < 3:
        return None
    face = ERROR_RATE if "confusion" in view.shown else SQUARED
    curves = {
        name: _risks(found[name], face) for name in ("mean_member", "best", "ensemble") if name in found
    }
    top = max(max(curve) for name, curve in curves.items())
    panel = Panel(
        Range(0, 1, factor=100),
        Range(0, top * 1.06 or 0.01, factor=face.factor),
        width=width,
        tall=True,
        label=f"{face.label} of the most certain rows against the share of rows kept",
        x_label="rows kept, most certain first %",
        y_label=f"{face.label} {face.unit}".strip(),
    )
    kinds = {"mean_member": "before-line", "best": "guide", "ensemble": "ensemble-line"}
    for name, curve in curves.items():
        panel.line(found["coverage"], curve, kinds[name])
    panel.dots([1.0], [curves["ensemble"][-1]], "ensemble-dot", 3.5)
    return Figure(
        "Does it know when it does not know?",
        panel.drawing.markup(),
        _caption(found, curves["ensemble"], face),
        _legend(view, found, face),
        numbers=_numbers(found, curves, face),
    )


def _risks(stored: Values, face: Look) -> list[float]:
    """What is drawn of stored mean losses: themselves, or the root of squared errors."""
    return [math.sqrt(value) for value in stored] if face is SQUARED else list(stored)


def _legend(view: RunView, found: Mapping[str, Any], face: Look) -> tuple[tuple[str, str], ...]:
    member = "mean chosen member" if view.is_selected else "mean member"
    legend = [("ensemble-line", "ensemble")]
    legend += [("before-line", member)] if "mean_member" in found and len(view.chosen) > 1 else []
    return (*legend, ("guide", f"had it left out its {BEST[face.label]} first"))


def _caption(found: Mapping[str, Any], curve: list[float], face: Look) -> str:
    at_90 = int(np.abs(np.asarray(found["coverage"]) - 0.9).argmin())
    places = 2 if face is ERROR_RATE else None
    moved = (
        f"Without the least certain tenth the {face.label if face is SQUARED else 'error rate'} is "
        f"{face.show(curve[at_90], places)}, not {face.show(curve[-1], places)}."
    )
    of = "" if face is ERROR_RATE else "squared errors' "
    area, excess = (_area(found[name], face) for name in ("aurc", "excess"))
    area = f"Area under the {of}curve (AURC) {area}, of which {excess} is in excess of the best order"
    if "mean_member_aurc" in found:
        area += f"; mean member {_area(found['mean_member_aurc'], face)}"
    return f"{moved} {area}."


def _area(value: float, face: Look) -> str:
    return f"{number(100 * value, 2 if value >= 1e-3 else 3)} %" if face is ERROR_RATE else number(value)


def _numbers(found: Mapping[str, Any], curves: Mapping[str, list[float]], face: Look) -> Numbers:
    names = [name for name in ("ensemble", "mean_member", "best") if name in curves]
    head = ["rows kept %", *(f"{name.replace('_', ' ')} {face.unit}".strip() for name in names)]
    rows = [
        (number(100 * share, 1), *(face.bare(curves[name][p]) for name in names))
        for p, share in enumerate(found["coverage"])
    ]
    return Numbers.of(head, rows, spread=True)
