"""One pair of axes: ranges with round ticks, and marks in data coordinates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ensemble_svc.report.drawing import Drawing
from ensemble_svc.report.text import number

LOG_FROM = 24
"""Count from which an axis of counts is logarithmic."""
Values = npt.NDArray[np.float64] | Sequence[float]


@dataclass(frozen=True)
class Range:
    """What an axis spans; ``factor`` turns stored values into shown ones (100 for percent)."""

    low: float
    high: float
    log: bool = False
    factor: float = 1.0
    flipped: bool = False
    """Large values at the start: for metrics of which less is better, so that better is always far."""
    whole: bool = False
    """Only whole numbers can be ticks."""
    root: bool = False
    """By the square root, from 0: small shares beside large ones."""

    @classmethod
    def over(
        cls,
        values: Iterable[float],
        *,
        margin: float = 0.05,
        factor: float = 1.0,
        flipped: bool = False,
        within: tuple[float, float] = (-math.inf, math.inf),
    ) -> Range:
        """The finite values with a margin on both sides, cut to ``within``; never empty."""
        finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        pad = (high - low) * margin or abs(high) * 0.05 or 0.5
        return cls(max(within[0], low - pad), min(within[1], high + pad), factor=factor, flipped=flipped)

    @classmethod
    def of_counts(cls, counts: Sequence[float]) -> Range:
        """An axis of rising whole numbers, logarithmic where they go far."""
        if counts[-1] >= LOG_FROM:
            return cls(counts[0] * 0.93, counts[-1] * 1.06, log=True, whole=True)
        return replace(cls.over(counts, margin=0.03), whole=True)

    def place(self, value: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Position of values along the axis: 0 at its start, 1 at its end."""
        v = np.asarray(value, dtype=np.float64)
        low, high = self.low, self.high
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                v, low, high = np.log(v), math.log(low), math.log(high)
        if self.root:
            v, low, high = np.sqrt(np.maximum(v, 0)), math.sqrt(low), math.sqrt(high)
        share = (v - low) / (high - low)
        return 1 - share if self.flipped else share

    def ticks(self, wanted: int = 5) -> list[tuple[float, str]]:
        """Round values inside the range, with their words."""
        low, high = self.low * self.factor, self.high * self.factor
        if self.root:
            shown = [0.0, *_log_ticks(high / 200, high, wanted)[-wanted:]]
        else:
            shown = _log_ticks(low, high, wanted) if self.log else _ticks(low, high, wanted, self.whole)
        step = min((b - a for a, b in zip(shown, shown[1:], strict=False)), default=1.0)
        return [(v / self.factor, _word(v, step, self.log)) for v in shown]


def _ticks(low: float, high: float, wanted: int, whole: bool) -> list[float]:
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw * 0.999)
    step = max(1.0, round(step)) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _log_ticks(low: float, high: float, wanted: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for parts in ((1, 2, 5), (1, 3), (1,)):
        found = [p * 10.0**d for d in decades for p in parts if low * 0.999 <= p * 10.0**d <= high * 1.001]
        if len(found) <= wanted + 2:
            return found if len(found) > 1 else _ticks(low, high, wanted, whole=False)
    return found[:: math.ceil(len(found) / wanted)]


def _word(value: float, step: float, log: bool) -> str:
    if abs(value) >= 1e6 or 0 < abs(value) < (1e-3 if log else 1e-4):
        return f"{value:.0e}".replace("-", "−") if abs(value) > step * 1e-6 else "0"
    if log:
        return f"{value:,g}"
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    return number(value, min(6, places + (round(step * 10**places, 6) % 1 > 0)))


HALF, THIRD = 536.0, 352.0
"""Widths of a plot that shares its line of the page with one other, or with two."""


def width_of(num_figures: int) -> float:
    """Three plots share a line, other numbers go in pairs."""
    return THIRD if num_figures == 3 else HALF


class Panel:
    """A plot's frame, grid and labels, and the marks inside it."""

    left, right, top, bottom = 46.0, 14.0, 22.0, 38.0

    def __init__(
        self,
        x: Range,
        y: Range,
        *,
        label: str,
        x_label: str,
        y_label: str,
        width: float = HALF,
        tall: bool = False,
    ) -> None:
        self.x, self.y = x, y
        height = round(150 + (0.43 if tall else 0.29) * width)
        self.drawing = Drawing(width, height, label)
        self.inner_width, self.inner_height = width - self.left - self.right, height - self.top - self.bottom
        self._frame(x_label, y_label)
        self.pen = self.drawing.window(
            self.left - 6, self.top - 6, self.inner_width + 12, self.inner_height + 12
        )

    def _frame(self, x_label: str, y_label: str) -> None:
        d, base, end = self.drawing, self.top + self.inner_height, self.left + self.inner_width
        for value, word in self.y.ticks(max(3, round(self.inner_height / 50))):
            y = self.at(self.x.low, value)[1]
            d.line((self.left, y), (end, y), "grid")
            d.text((self.left - 7, y + 3.8), word, "tick", "end")
        for value, word in self.x.ticks(max(3, round(self.inner_width / 75))):
            x = self.at(value, self.y.low)[0]
            d.line((x, base), (x, base + 4), "axis")
            d.text((x, base + 17), word, "tick", "middle")
        d.line((self.left, base), (end, base), "axis")
        d.text((end, base + 33), x_label, "axis-label", "end")
        d.text((2, 11), y_label, "axis-label")

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixel of a point in data coordinates."""
        return self.points([x], [y])[0]

    def points(self, xs: Values, ys: Values) -> list[tuple[float, float]]:
        """Pixels of points in data coordinates."""
        across = self.left + self.x.place(xs) * self.inner_width
        down = self.top + (1 - self.y.place(ys)) * self.inner_height
        return list(zip(across.tolist(), down.tolist(), strict=True))

    def line(self, xs: Values, ys: Values, kind: str, tip: str = "") -> None:
        """Strokes through the points."""
        self.pen.path(self.points(xs, ys), kind, tip)

    def band(self, xs: Values, lows: Values, highs: Values, kind: str) -> None:
        """The area between two lines; points where either is missing are left out."""
        x, low, high = (np.asarray(v, dtype=np.float64) for v in (xs, lows, highs))
        known = np.isfinite(low) & np.isfinite(high)
        forth, back = self.points(x[known], high[known]), self.points(x[known], low[known])
        self.pen.area(forth + back[::-1], kind)

    def dots(self, xs: Values, ys: Values, kind: str, radius: float = 3) -> None:
        """A circle at each point."""
        for point in self.points(xs, ys):
            if all(map(math.isfinite, point)):
                self.pen.dot(point, radius, kind)
