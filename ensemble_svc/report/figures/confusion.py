"""What is mistaken for what: rows by true and predicted class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_svc.report.drawing import Drawing
from ensemble_svc.report.figure import Figure, Numbers
from ensemble_svc.report.panel import THIRD
from ensemble_svc.report.text import clean, number
from ensemble_svc.report.view import RunView

NARROW_UP_TO = 10
"""Classes beyond which it takes a line of the page to itself."""

SHORT_FROM, SHORT = 6, 4
"""Classes beyond which names longer than so many letters need that too."""

Table = npt.NDArray[np.int64]


def draw(view: RunView) -> Figure | None:
    """The matrix of the classes that are mistaken most often, or of all; None for a run without it."""
    found = view.shown.get("confusion")
    if not found:
        return None
    table = np.array(found["counts"], dtype=np.int64)
    names = [_name(view, number) for number in found["classes"]]
    if len(table) > len(names):
        names.append("all others")
    wide = not _is_narrow(names)
    mistakes = [(_name(view, t), _name(view, s), rows) for t, s, rows in found["mistakes"]]
    return Figure(
        "What is mistaken for what",
        _matrix(table, names).markup(),
        _caption(table, mistakes, found["of"] if found["of"] > len(found["classes"]) else None),
        wide=wide,
        numbers=Numbers.of(("true", "taken for", "rows"), [(t, s, f"{n:,}") for t, s, n in mistakes]),
    )


def _is_narrow(names: Sequence[str]) -> bool:
    """Whether a third of the page is enough for it: few classes, of short names where there are more than a handful."""
    return len(names) <= NARROW_UP_TO and (len(names) <= SHORT_FROM or max(map(len, names)) <= SHORT)


def _name(view: RunView, number: int) -> str:
    return clean(view.classes[number], limit=12) if number < len(view.classes) else str(number)


def _matrix(table: Table, names: Sequence[str]) -> Drawing:
    longest, narrow = max(map(len, names)), _is_narrow(names)
    size, left = THIRD if narrow else 760.0, 14 + 7.0 * max(3, longest)
    cell = min(84.0 if len(names) < 5 else 40.0, (size - left - 4) / len(names))
    steep = longest > max(1, int(cell / 6.4))
    if steep:
        cell = min(cell, (size - left - 46) / len(names))
    top = 36.0 + 7 * min(7, longest) * steep
    drawing = Drawing(
        size, top + cell * len(names) + 12, "Confusion matrix: rows by true and predicted class"
    )
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
    table: Table,
    names: Sequence[str],
    at: tuple[int, int],
    corner: tuple[float, float],
    cell: float,
) -> None:
    row, column = at
    rows = int(table[row, column])
    share = rows / max(1, int(table[row].sum()))
    full = 1.0 if row == column else _most_mistaken(table)
    level = 0 if rows == 0 else 1 + min(4, int(5 * share / full))
    kind = "right" if row == column else "wrong" if rows else "right"
    tip = f"{names[row]} taken for {names[column]}: {rows:,} rows, {number(100 * share, 1)} % of {names[row]}"
    d.box(corner, cell - 1.5, cell - 1.5, f"cell {kind}-{level}", tip if rows else "", round_=2)
    if rows and cell >= 15:
        word = f"{rows:,}" if len(f"{rows:,}") * 6.5 < cell - 2 else f"{100 * share:.0f}%"
        middle = (corner[0] + cell / 2 - 0.7, corner[1] + cell / 2 + 3.4)
        d.text(middle, word, f"cell-text on-{kind}-{level}", "middle")


def _most_mistaken(table: Table) -> float:
    """The largest share of a true class that is taken for one other, which has the deepest colour; a tenth at least."""
    shares = table / np.maximum(1, table.sum(1, keepdims=True))
    return max(0.1, float((shares - np.diag(np.diag(shares))).max()))


def _caption(table: Table, mistakes: Sequence[tuple[str, str, Any]], cut_from: int | None) -> str:
    head = "Rows by true and predicted class"
    if cut_from is not None:
        head += f"; of {cut_from:,} classes the {len(table) - 1} that are mistaken most often"
    wrong = int(table.sum() - np.trace(table))
    if not mistakes:
        return f"{head}. No row is mistaken."
    true, said, rows = mistakes[0]
    most = f"most often {true} taken for {said} ({rows:,})"
    if cut_from is not None:
        return f"{head}; {most}."
    return f"{head}; {wrong:,} of {int(table.sum()):,} mistaken, {most}."
