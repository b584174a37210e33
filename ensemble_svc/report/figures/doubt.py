"""Does it doubt what it has never seen: how unsure it is of usual rows and of rows from elsewhere.

Shapes: B bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ensemble_svc.report.elsewhere import by_task
from ensemble_svc.report.figure import Figure, Numbers
from ensemble_svc.report.panel import Panel, Range, width_of
from ensemble_svc.report.text import clean, number
from ensemble_svc.report.view import RunView

SHOWN = {
    "entropy": ("All of its doubt", "entropy, nats"),
    "mutual_information": ("Disagreement of the members", "mutual information, nats"),
    "total": ("All of its doubt", "total variance"),
    "epistemic": ("Disagreement of the members", "epistemic variance"),
}


def draw(view: RunView) -> list[Figure]:
    """Two histograms for each data set from elsewhere."""
    ood: Mapping[str, Any] = view.summary.get("ood") or {}
    each = [
        (source, task, name, own[name])
        for source, found in ood.items()
        for task, own in by_task(found["scores"]).items()
        for name in SHOWN
        if "histogram" in own.get(name, {})
    ]
    width = width_of(len(each))
    several = len(ood) > 1
    return [_figure(view, _name(source), task, name, one, width, several) for source, task, name, one in each]


def _figure(
    view: RunView, source: str, task: str, name: str, one: Mapping[str, Any], width: float, several: bool
) -> Figure:
    what, axis = SHOWN[name]
    counts = one["histogram"]
    usual, foreign = (np.asarray(counts[kind]) / sum(counts[kind]) for kind in ("usual", "foreign"))
    edges = counts["edges"]
    panel = Panel(
        Range(edges[0], edges[-1]),
        Range(0, max(usual.max(), foreign.max()) * 1.05, factor=100, root=True),
        label=f"{what}: share of rows by {axis}, usual rows and rows from elsewhere",
        x_label=axis,
        y_label="Rows %",
        width=width,
    )
    for shares, area, line in (
        (usual, "usual-area", "usual-line"),
        (foreign, "foreign-area", "foreign-line"),
    ):
        xs, ys = map(list, zip(*_steps(edges, shares), strict=True))
        panel.pen.area(panel.points(xs, ys), area)
        panel.line(xs, ys, line)
    split = clean(view.split or "usual", limit=40)
    auroc = number(100 * one["ensemble"]["auroc"], 1)
    title = " · ".join(filter(None, [clean(task, limit=30), what, source if several else ""]))
    caption = (
        f"By it a row from elsewhere is told from a {split} row in {auroc} % of the pairs. The scale of the shares "
        "is a root, so that small ones show."
    )
    legend = (("usual-area", f"{split} rows"), ("foreign-area", source))
    rows = [
        (number(edges[b]), number(edges[b + 1]), number(100 * usual[b], 1), number(100 * foreign[b], 1))
        for b in range(len(usual))
        if usual[b] or foreign[b]
    ]
    head = (f"{axis} from", "to", f"{split} rows %", f"{source} %")
    return Figure(title, panel.drawing.markup(), caption, legend, numbers=Numbers.of(head, rows, spread=True))


def _name(source: str) -> str:
    """Of a path its last part."""
    return clean(source if "{" in source else source.rstrip("/").rpartition("/")[2], limit=40)


def _steps(edges: list[float], shares: Any) -> Iterator[tuple[float, float]]:
    """Corners of a histogram's outline."""
    yield edges[0], 0.0
    for low, high, share in zip(edges, edges[1:], shares, strict=False):
        yield low, float(share)
        yield high, float(share)
    yield edges[-1], 0.0
