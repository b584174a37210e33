"""How the ensemble of a search grows with its picks, on the rows that report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ensemble_svc.report.figure import Figure, Numbers
from ensemble_svc.report.looks import headline, look
from ensemble_svc.report.panel import Panel, Range
from ensemble_svc.report.text import clean, is_number
from ensemble_svc.report.view import RunView

Curve = Sequence[Mapping[str, Any]]


def draw(view: RunView) -> list[Figure]:
    """One figure for each headline metric that the curve holds; none where nothing was picked, or is no number."""
    curve: Curve = view.summary.get("pick_curve") or ()
    names = headline(name for point in curve for name in point if name not in ("picks", "members"))
    known = {name: [point for point in curve if is_number(point.get(name))] for name in names}
    split = clean(view.split, limit=40)
    return [_figure(points, name, split) for name, points in known.items() if len(points) > 1]


def _figure(points: Curve, name: str, split: str) -> Figure:
    face = look(name)
    picks, values = [float(point["picks"]) for point in points], [float(point[name]) for point in points]
    panel = Panel(
        Range.of_counts(picks),
        Range.over(values, factor=face.factor, within=face.span),
        label=f"{face.label} against the number of picks",
        x_label="picks",
        y_label=f"{face.label} {face.unit}".strip(),
    )
    panel.line(picks, values, "ensemble-line")
    panel.dots(picks, values, "ensemble-dot", 3)
    told = Numbers.of(
        ("picks", "different members", f"{face.label} {face.unit}".strip()),
        [(f"{point['picks']}", f"{point['members']}", face.bare(point[name])) for point in points],
    )
    members = points[-1]["members"]
    caption = (
        f"Each pick is the trial that made the ensemble best on the rows that decide, here on {split} rows: "
        f"{picks[-1]:.0f} picks of {members} members."
    )
    return Figure(f"{face.label} against picks", panel.drawing.markup(), caption, numbers=told)
