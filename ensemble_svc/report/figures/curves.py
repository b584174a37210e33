"""Learning curves: a thin line per member, percentile bands when they are too many to tell apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_svc.report.figure import Figure, Numbers
from ensemble_svc.report.looks import Look, look, ordered
from ensemble_svc.report.panel import Panel, Range, width_of
from ensemble_svc.report.text import clean, is_number
from ensemble_svc.report.view import LOST, Columns, RunView

LINES_UP_TO = 50
POINTS = 240
"""Points of a line at most; longer histories are thinned."""

Vector = npt.NDArray[np.float64]
Legend = tuple[tuple[str, str], ...]


def draw(view: RunView) -> list[Figure]:
    """One figure for the training loss and one for each validation metric."""
    names = {name for columns in view.histories.values() for name in columns if name.startswith("val_")}
    watched = ordered(name.removeprefix("val_") for name in names)
    width = width_of(1 + len(watched))
    figures = [_figure(view, "train_loss", Look("train_loss", "Training loss"), width)]
    figures += [_figure(view, f"val_{name}", look(name), width) for name in watched]
    return [figure for figure in figures if figure is not None]


def _figure(view: RunView, column: str, face: Look, width: float) -> Figure | None:
    lines = {m: _series(columns, column) for m, columns in view.histories.items() if column in columns}
    lines = {
        member: (epochs, values) for member, (epochs, values) in lines.items() if np.isfinite(values).any()
    }
    if not lines:
        return None
    entries = {member["id"]: member for member in view.members}
    lost = {member for member in lines if entries.get(member, {}).get("status") in LOST}
    sound = [line for member, line in lines.items() if member not in lost] or list(lines.values())
    longest = max(epochs[-1] for epochs, _ in lines.values())
    title = "Training loss" if column == "train_loss" else f"Validation {face.label}"
    panel = Panel(
        Range(0 if longest > 1 else 0.5, float(longest) * 1.02, whole=True),
        _height(sound, face),
        label=title,
        x_label="epoch",
        y_label=f"{face.label} {face.unit}".strip(),
        width=width,
    )
    many = len(lines) > LINES_UP_TO
    if many:
        _bands(panel, sound)
    else:
        _lines(panel, lines, entries)
    _lost(panel, {member: lines[member] for member in sorted(lost)[: 5 if many else 20]})
    return Figure(
        title,
        panel.drawing.markup(),
        _caption(lines, lost, many, view),
        _legend(lines, lost, entries, many),
        numbers=_numbers(sound, face),
    )


def _numbers(lines: Sequence[tuple[Vector, Vector]], face: Look) -> Numbers:
    """The median and the ends of the members' values at each epoch that is drawn of any."""
    held: dict[float, list[float]] = {}
    for epochs, values in lines:
        for epoch, value in zip(epochs.tolist(), values.tolist(), strict=True):
            if is_number(value):
                held.setdefault(epoch, []).append(value)
    rows = [
        (
            f"{epoch:g}",
            f"{len(some):,}",
            *(face.bare(float(v)) for v in (np.median(some), min(some), max(some))),
        )
        for epoch, some in sorted(held.items())
    ]
    return Numbers.of(("epoch", "members", "median", "least", "most"), rows, spread=True)


def _series(columns: Columns, name: str) -> tuple[Vector, Vector]:
    values = np.asarray(columns[name], dtype=np.float64)
    epochs = np.asarray(columns.get("epoch", np.arange(1, len(values) + 1)), dtype=np.float64)
    keep = np.unique(np.linspace(0, max(0, len(values) - 1), min(len(values), POINTS)).round().astype(int))
    return epochs[keep], values[keep]


def _height(lines: Sequence[tuple[Vector, Vector]], face: Look) -> Range:
    values = np.concatenate([values for _, values in lines])
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low > 25 and face.factor == 1:
        return Range(low / 1.15, high * 1.15, log=True)
    late = np.concatenate([v[len(v) // 10 :] for _, v in lines])
    late = late[np.isfinite(late)]
    if len(late):
        bulk = np.quantile(late, [0.01, 0.99])
        spread = float(bulk[1] - bulk[0]) or abs(high) or 1.0
        low, high = max(low, float(bulk[0]) - 3 * spread), min(high, float(bulk[1]) + 3 * spread)
    return Range.over([low, high], factor=face.factor, within=face.span)


def _lines(
    panel: Panel, lines: Mapping[str, tuple[Vector, Vector]], entries: Mapping[str, Mapping[str, Any]]
) -> None:
    for member, (epochs, values) in lines.items():
        entry = entries.get(member, {})
        if entry.get("status") in LOST:
            continue
        panel.line(epochs, values, "member-line", clean(member))
    for member, (epochs, values) in lines.items():
        entry = entries.get(member, {})
        if not entry.get("stopped") or not is_number(best := entry.get("best_epoch")):
            continue
        nearest = int(np.abs(epochs - best).argmin())
        panel.dots(epochs[nearest : nearest + 1], values[nearest : nearest + 1], "stop-dot", 3)


def _lost(panel: Panel, lines: Mapping[str, tuple[Vector, Vector]]) -> None:
    for member, (epochs, values) in lines.items():
        known = np.isfinite(values)
        panel.line(epochs, values, "lost-line", f"{clean(member)}: did not finish")
        x, y = panel.at(float(epochs[known][-1]), float(values[known][-1]))
        if not (np.isfinite(x) and np.isfinite(y)):
            continue
        y = min(max(y, panel.top + 6), panel.top + panel.inner_height - 6)
        panel.pen.cross((x, y), 4, "lost-line", f"{clean(member)}: did not finish")


def _bands(panel: Panel, lines: Sequence[tuple[Vector, Vector]]) -> None:
    epochs = np.unique(np.concatenate([epochs for epochs, _ in lines]))
    table = np.full((len(lines), len(epochs)), np.nan)
    for row, (at, values) in enumerate(lines):
        table[row, np.searchsorted(epochs, at)] = values
    known = np.isfinite(table).sum(0) >= min(5, len(lines))
    table[~np.isfinite(table)] = np.nan
    quantiles = np.nanquantile(table[:, known], [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    if known.sum() == 1:  # an area of one epoch has no width
        (epoch,), (low, *_, high) = epochs[known], quantiles[:, 0]
        panel.pen.line(panel.at(epoch, low), panel.at(epoch, high), "spread-line")
        panel.dots([epoch], [quantiles[2, 0]], "member-dot", 4)
        return
    panel.band(epochs[known], quantiles[0], quantiles[4], "band-outer")
    panel.band(epochs[known], quantiles[1], quantiles[3], "band-inner")
    panel.line(epochs[known], quantiles[2], "median-line")


def _caption(lines: Mapping[str, Any], lost: set[str], many: bool, view: RunView) -> str:
    trained = sum(bool(member.get("epochs")) for member in view.members)
    some = f", evenly spread over {trained:,}," if trained > len(view.histories) else ""
    return f"Percentiles of {len(lines) - len(lost):,} members{some} at each epoch." if many else ""


def _legend(lines: Iterable[str], lost: set[str], entries: Mapping[str, Any], many: bool) -> Legend:
    stopped = any(entries.get(member, {}).get("stopped") for member in lines) and not many
    marks = (
        [("median-line", "median"), ("band-inner", "middle half"), ("band-outer", "5–95 %")] if many else []
    )
    marks += [("member-line", "a member")] if not many else []
    marks += [("stop-dot", "best epoch of a member that stopped early")] if stopped else []
    marks += [("lost-line", "not in the ensemble")] if lost else []
    return tuple(marks)
