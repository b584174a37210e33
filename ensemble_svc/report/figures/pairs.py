"""Member against member: above the diagonal how far they differ, below it how far they err together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_svc.report.drawing import Drawing
from ensemble_svc.report.figure import Figure, Numbers
from ensemble_svc.report.panel import HALF
from ensemble_svc.report.text import clean, number
from ensemble_svc.report.view import RunView
from ensemble_svc.store.members import parted

SHADES = 9
"""Steps of a colour, from 1; 0 is empty."""
WORDS_FROM = 27.0
"""Pixels of a cell from which its number stands in it."""
LEFT, TOP = 44.0, 20.0

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """The two matrices [K, K]; NaN where a number says nothing."""

    names: tuple[str, ...]
    apart: Matrix
    alike: Matrix
    in_percent: bool

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Pairs:
        """As they are stored."""
        classes = "disagreement" in found
        apart = found["disagreement" if classes else "distance"]
        names = tuple(clean(own, limit=60) for own in found["members"])
        return cls(names, _matrix(apart), _matrix(found["error_correlation"]), classes)

    def apart_words(self, row: int, column: int) -> str:
        """How far two members differ."""
        value = self.apart[row, column]
        return f"{number(100 * value, 1)} %" if self.in_percent else number(value, 3 if value < 10 else 1)


def draw(view: RunView) -> Figure | None:
    """The heat map; None for one member."""
    found = view.shown.get("pairs")
    if not found:
        return None
    pairs = Pairs.of(found)
    return Figure(
        "Member against member",
        _drawing(pairs).markup(),
        _caption(pairs, found["of"]),
        (
            ("cool-6", "above the diagonal: " + ("disagreement" if pairs.in_percent else "distance")),
            ("warm-6", "below: correlation of errors"),
        ),
        numbers=_numbers(pairs),
    )


def _matrix(stored: Any) -> Matrix:
    return np.array([[np.nan if v is None else float(v) for v in line] for line in stored])


def _drawing(pairs: Pairs) -> Drawing:
    number_of = len(pairs.names)
    cell = min(40.0, (HALF - LEFT - 8) / number_of)
    what = "disagree" if pairs.in_percent else "differ"
    drawing = Drawing(HALF, TOP + cell * number_of + 6, f"How far each two members {what}, and err together")
    for place, name in enumerate(pairs.names):
        words = _short(name)
        if cell >= 12:
            drawing.text((LEFT - 6, TOP + (place + 0.5) * cell + 4), words, "tick", "end")
            drawing.text((LEFT + (place + 0.5) * cell, TOP - 6), words, "tick", "middle")
    top = float(np.nanmax(np.triu(pairs.apart, 1), initial=0)) or 1.0
    for row, column in np.ndindex(pairs.apart.shape):
        if row != column:
            _cell(drawing, pairs, (row, column), cell, top)
    return drawing


def _short(name: str) -> str:
    """A candidate's index, with the number of the one of several that it is."""
    member, number_of = parted(name)
    index = member.split("-")[0].lstrip("0") or "0"
    return f"{index}.{number_of}" if number_of else index


def _cell(d: Drawing, pairs: Pairs, at: tuple[int, int], cell: float, top: float) -> None:
    row, column = at
    corner = (LEFT + column * cell, TOP + row * cell)
    above = column > row
    value = pairs.apart[at] / top if above else pairs.alike[at]
    shade = max(0, min(SHADES, round(SHADES * value))) if np.isfinite(value) else 0
    kind = f"{'cool' if above else 'warm'}-{shade}"
    names = f"{pairs.names[row]} and {pairs.names[column]}"
    words = pairs.apart_words(row, column) if above else number(pairs.alike[at], 2)
    what = "differ" if above else "errors correlate"
    d.box(corner, cell - 1.2, cell - 1.2, f"cell {kind}", f"{names}: {what} {words}", round_=2)
    shown = _brief((100 if pairs.in_percent else 1) * pairs.apart[at] if above else pairs.alike[at])
    if cell >= WORDS_FROM and len(shown) * 6.2 < cell:
        middle = (corner[0] + cell / 2 - 0.6, corner[1] + cell / 2 + 3.6)
        d.text(middle, shown, f"cell-text{' on-dark' if shade >= 7 else ''}", "middle")


def _brief(value: float) -> str:
    """Two digits of a number, without a leading zero."""
    if not np.isfinite(value):
        return ""
    size = abs(value)
    places = 2 if size < 0.95 else 1 if size < 9.95 else 0
    text = f"{value:.{places}f}"
    return "0" if float(text) == 0 else text.replace("0.", ".", 1) if size < 1 else text


def _caption(pairs: Pairs, of: int) -> str:
    upper = np.triu_indices(len(pairs.names), 1)
    order = np.argsort(pairs.apart[upper], kind="stable")
    row, column = (int(side[order[-1]]) for side in upper)
    cut = f"The {len(pairs.names)} of the largest weights, of {of:,}. " if of > len(pairs.names) else ""
    most = pairs.apart_words(row, column)
    far = f"differ by up to {most} (root mean square)"
    if pairs.in_percent:
        far = f"say different classes in up to {most} of the rows"
    known = pairs.alike[upper][np.isfinite(pairs.alike[upper])]
    alike = (
        f" Errors correlate by {number(known.mean(), 2)} on average; 0 would be ideal." if len(known) else ""
    )
    return f"{cut}Two members {far}. Those most like the others come first.{alike}"


def _numbers(pairs: Pairs) -> Numbers:
    upper = list(combinations(range(len(pairs.names)), 2))
    upper.sort(key=lambda at: -pairs.apart[at])
    rows = [
        (f"{pairs.names[r]} and {pairs.names[c]}", pairs.apart_words(r, c), number(pairs.alike[r, c], 2))
        for r, c in upper
    ]
    return Numbers.of(("pairs, the farthest apart first", "differ", "errors correlate"), rows)
