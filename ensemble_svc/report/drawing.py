"""A small pen for inline SVG: shapes get a class, the page's style sheet gives them colour.

So one drawing serves light, dark and print, and no shape carries a style of its own. Text goes
through the XML writer, which escapes it; this is the only place where markup is declared safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as ET

from markupsafe import Markup

from ensemble_svc.report.text import clean

Point = tuple[float, float]
NARROW, WIDE = 400.0, 700.0
"""Widths between which a drawing's words grow where the page is narrow, since it shrinks there."""


class Drawing:
    """An SVG element under the pen; lengths are pixels at full size."""

    def __init__(self, width: float, height: float, label: str) -> None:
        self.width, self.height = width, height
        view = f"0 0 {width:g} {height:g}"
        kind = "plot half" if NARROW < width < WIDE else "plot"
        self._root = ET.Element(
            "svg", {"viewBox": view, "role": "img", "class": kind, "aria-label": clean(label)}
        )
        self._pen = self._root

    def window(self, left: float, top: float, width: float, height: float) -> Drawing:
        """A pen in the same coordinates whose strokes are cut off outside the given rectangle."""
        inner = Drawing.__new__(Drawing)
        inner.width, inner.height, inner._root = width, height, self._root
        box = {"x": left, "y": top, "width": width, "height": height}
        attributes = {name: f"{amount:g}" for name, amount in box.items()}
        view = f"{left:g} {top:g} {width:g} {height:g}"
        inner._pen = ET.SubElement(self._pen, "svg", attributes, viewBox=view)
        return inner

    def line(self, start: Point, end: Point, kind: str) -> None:
        """A straight stroke."""
        self._add("line", kind, x1=start[0], y1=start[1], x2=end[0], y2=end[1])

    def path(self, points: Iterable[Point], kind: str, tip: str = "") -> None:
        """Strokes through points; a point that is not finite lifts the pen."""
        self._add("path", kind, tip, d=_path(points))

    def curve(self, points: Sequence[Point], kind: str, tip: str = "", *, bend: float = 0.4) -> None:
        """A smooth stroke through points from left to right, level at each.

        Args:
            bend: share of the way to the next point at which it begins to turn.
        """
        steps = [f"M{_short(points[0][0])} {_short(points[0][1])}"]
        for (x, y), (a, b) in zip(points, points[1:], strict=False):
            way = (a - x) * bend
            steps.append(
                f"C{_short(x + way)} {_short(y)} {_short(a - way)} {_short(b)} {_short(a)} {_short(b)}"
            )
        self._add("path", kind, tip, d="".join(steps))

    def area(self, points: Sequence[Point], kind: str) -> None:
        """A filled outline."""
        if points:
            self._add("path", kind, d=_path(points) + "Z")

    def dot(self, at: Point, radius: float, kind: str, tip: str = "") -> None:
        """A filled circle."""
        self._add("circle", kind, tip, cx=at[0], cy=at[1], r=radius)

    def diamond(self, at: Point, radius: float, kind: str, tip: str = "") -> None:
        """A square on its corner."""
        (x, y), r = at, radius
        self._add("path", kind, tip, d=_path([(x - r, y), (x, y - r), (x + r, y), (x, y + r)]) + "Z")

    def cross(self, at: Point, radius: float, kind: str, tip: str = "") -> None:
        """A small x."""
        (x, y), r = at, radius
        strokes = _path([(x - r, y - r), (x + r, y + r)]) + _path([(x - r, y + r), (x + r, y - r)])
        self._add("path", kind, tip, d=strokes)

    def box(
        self, corner: Point, width: float, height: float, kind: str, tip: str = "", *, round_: float = 0
    ) -> None:
        """A rectangle from its upper left corner."""
        shape = {"x": corner[0], "y": corner[1], "width": max(0.0, width), "height": max(0.0, height)}
        self._add("rect", kind, tip, **shape, rx=round_)

    def text(
        self, at: Point, words: object, kind: str = "", anchor: str = "start", *, turn: float = 0
    ) -> None:
        """Words on one line; ``anchor`` is start, middle or end; ``turn`` is in degrees, clockwise."""
        turned = {"transform": f"rotate({turn:g} {at[0]:g} {at[1]:g})"} if turn else {}
        self._add("text", kind, x=at[0], y=at[1], **{"text-anchor": anchor}, **turned).text = clean(words)

    def markup(self) -> Markup:
        """The drawing, ready to stand in a page."""
        return Markup(ET.tostring(self._root, encoding="unicode"))

    def _add(self, tag: str, kind: str, tip: str = "", **attributes: float | str) -> ET.Element:
        written = {name: a if isinstance(a, str) else _short(a) for name, a in attributes.items()}
        element = ET.SubElement(self._pen, tag, written | ({"class": kind} if kind else {}))
        if tip:
            ET.SubElement(element, "title").text = clean(tip)
        return element


def _path(points: Iterable[Point]) -> str:
    steps, down = [], False
    for x, y in points:
        if not (abs(x) < 1e6 and abs(y) < 1e6):
            down = False
            continue
        steps.append(f"{'L' if down else 'M'}{_short(x)} {_short(y)}")
        down = True
    return "".join(steps)


def _short(amount: float) -> str:
    return f"{amount:.1f}".removesuffix(".0")
