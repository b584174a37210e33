"""How the ensemble's quality grows with its number of members."""

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
    """One figure for each headline metric that the curve holds numbers of."""
    curve: Curve = view.summary.get("size_curve") or ()
    names = headline(name for point in curve for name in point if name != "size")
    known = {
        name: [point for point in curve if is_number((point.get(name) or {}).get("mean"))] for name in names
    }
    split = clean(view.split, limit=40)
    return [_figure(points, name, split) for name, points in known.items() if len(points) > 1]


def _figure(points: Curve, name: str, split: str) -> Figure:
    face = look(name)
    sizes = [float(point["size"]) for point in points]
    mean, low, high = ([point[name][part] for point in points] for part in ("mean", "low", "high"))
    across = Range.of_counts(sizes)
    height = Range.over([*low, *high, *mean], factor=face.factor, within=face.span)
    panel = Panel(
        across,
        height,
        label=f"{face.label} against ensemble size",
        x_label="members in the ensemble",
        y_label=f"{face.label} {face.unit}".strip(),
    )
    panel.band(sizes, low, high, "ensemble-band")
    panel.line([across.low, across.high], [mean[-1]] * 2, "guide")
    panel.line(sizes, mean, "ensemble-line")
    panel.dots(sizes, mean, "ensemble-dot", 3)
    caption = f"Random subsets of these members, {split} rows. {_enough(sizes, mean)}".strip()
    legend = (("ensemble-line", "mean over subsets"), ("ensemble-band", "4 of 5 subsets"))
    rows = [
        (f"{size:g}", *(face.bare(value) for value in line))
        for size, *line in zip(sizes, mean, low, high, strict=True)
    ]
    told = Numbers.of(
        ("members", f"{face.label} {face.unit}".strip(), "4 of 5 from", "to"), rows, spread=True
    )
    return Figure(
        f"{face.label} against ensemble size", panel.drawing.markup(), caption, legend, numbers=told
    )


def _enough(sizes: Sequence[float], mean: Sequence[float]) -> str:
    total = mean[-1] - mean[0]
    if abs(total) < 1e-12 or len(sizes) < 3:
        return ""
    enough = next(size for size, m in zip(sizes, mean, strict=True) if (m - mean[0]) / total >= 0.9)
    if enough == sizes[-1]:
        return "Still improving at the last size."
    return f"{enough:.0f} of {sizes[-1]:.0f} members give 90 % of the change."
