"""Every member as a dot, the ensemble beside them: one row per metric, better to the right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ensemble_svc.report.drawing import Drawing
from ensemble_svc.report.figure import Figure
from ensemble_svc.report.looks import Look, look, ordered
from ensemble_svc.report.panel import Range
from ensemble_svc.report.picked import spread
from ensemble_svc.report.text import clean, is_number
from ensemble_svc.report.verdict import gain_parts
from ensemble_svc.report.view import RunView

WIDTH, ROW, LEFT, RIGHT = 1080, 86, 140, 872
DOTS_UP_TO = 1500
"""Members drawn at most in a row: the chosen, the best and the ends of the row, and others evenly spread."""
TIPS_UP_TO = 200
"""Members beyond which a dot no longer carries its own words."""


def draw(view: RunView) -> Figure | None:
    """The strips of the split that reports; None for fewer than two members."""
    summary = view.summary
    each = summary.get("members", {}).get("each", ())
    if len(each) < 2:
        return None
    names = [name for name in ordered(summary["ensemble"]) if is_number(summary["ensemble"][name])]
    drawing = Drawing(WIDTH, ROW * len(names) + 8, "Members against the ensemble")
    for row, name in enumerate(names):
        _strip(drawing, 4 + row * ROW, look(name), summary, view)
    legend = [("member-dot", "a member"), ("mean-mark", "mean member ± std"), ("ensemble-mark", "ensemble")]
    if view.is_selected:
        legend.insert(1, ("chosen-dot", "a chosen member"))
    if view.best is not None:
        legend.insert(1, ("best-dot", "best member chosen on validation"))
    return Figure(
        "Members against the ensemble",
        drawing.markup(),
        f"Rows of the {clean(view.split, limit=40)} split. Each scale runs so that better is to the right."
        + (f" About {DOTS_UP_TO:,} of {len(each):,} are drawn." if len(each) > DOTS_UP_TO else ""),
        tuple(legend),
        wide=True,
    )


def _strip(d: Drawing, top: float, face: Look, summary: Mapping[str, Any], view: RunView) -> None:
    values = [member.get(face.name) for member in summary["members"]["each"]]
    ensemble = summary["ensemble"][face.name]
    known = [v for v in values if is_number(v)]
    scale = Range.over([*known, ensemble], margin=0.06, factor=face.factor, flipped=not face.higher_is_better)
    middle = top + ROW * 0.42
    _axis(d, scale, middle, top + ROW - 22)
    _labels(d, face, summary, middle)
    _dots(d, scale, middle, values, face, view)
    _mean(d, scale, middle, summary, face.name)
    words = f"ensemble: {face.show(ensemble)}"
    d.diamond((_x(scale, ensemble), middle), 7.5, "ensemble-mark", words)


def _x(scale: Range, value: float) -> float:
    return float(LEFT + scale.place(value) * (RIGHT - LEFT))


def _axis(d: Drawing, scale: Range, middle: float, base: float) -> None:
    d.box((LEFT, middle - 24), RIGHT - LEFT, 48, "lane", round_=4)
    for value, word in scale.ticks(7):
        x = _x(scale, value)
        d.line((x, middle - 24), (x, middle + 24), "grid")
        d.text((x, base + 8), word, "tick", "middle")


def _labels(d: Drawing, face: Look, summary: Mapping[str, Any], middle: float) -> None:
    d.text((LEFT - 14, middle - 1), face.label, "row-label", "end")
    way = "higher is better" if face.higher_is_better else "lower is better"
    d.text((LEFT - 14, middle + 14), f"{face.unit}, {way}" if face.unit else way, "tick", "end")
    gains = summary.get("gain", {})
    over = "best" if summary.get("searched") and gains.get("over_best_member") else "mean"
    gain = (gains.get(f"over_{over}_member") or {}).get(face.name)
    spread = (gain["high"] - gain["low"]) / 2 if gain and is_number(gain.get("high")) else None
    places = face.places(spread) if spread is not None else None
    d.text((RIGHT + 14, middle - 1), face.show(summary["ensemble"][face.name], places), "row-value")
    if gain:
        amount, bounds = gain_parts(face.name, gain, signed=True)
        unit = f" {face.gained(amount)}" if face.gain_unit else ""
        d.text(
            (RIGHT + 14, middle + 15),
            f"{'over best' if over == 'best' else 'gain'} {amount}{unit} {bounds}",
            "tick",
        )


def _dots(d: Drawing, scale: Range, middle: float, values: Sequence[Any], face: Look, view: RunView) -> None:
    radius = 4.2 if len(values) <= 60 else 3.0 if len(values) <= TIPS_UP_TO else 2.0
    best, heaps = view.best, dict[int, int]()
    chosen = set(map(clean, view.chosen)) if view.is_selected else set[str]()
    order = sorted(_drawn(values, best, view), key=lambda k: (k == best, _name(view, k) in chosen))
    for position in order:
        value = values[position]
        if not is_number(value):
            continue
        x = _x(scale, value)
        column = round(x / (2 * radius))
        heaps[column] = heap = heaps.get(column, 0) + 1
        y = middle + _offset(heap, radius)
        tip = f"{_name(view, position)}: {face.show(value)}" if len(values) <= TIPS_UP_TO else ""
        kind = (
            "best-dot"
            if position == best
            else "chosen-dot"
            if _name(view, position) in chosen
            else "member-dot"
        )
        d.dot((x, y), radius, kind, tip)


def _drawn(values: Sequence[Any], best: int | None, view: RunView) -> list[int]:
    """Positions of the members that have a dot."""
    if len(values) <= DOTS_UP_TO:
        return list(range(len(values)))
    known = [place for place, value in enumerate(values) if is_number(value)]
    ends = [end(known, key=lambda place: values[place]) for end in (min, max) if known]
    own = set(view.chosen) if view.is_selected else set[str]()
    chosen = [place for place, name in enumerate(view.candidates) if name in own][: DOTS_UP_TO // 2]
    kept = [*ends, *chosen, *([] if best is None else [best])]
    return spread(len(values), DOTS_UP_TO, kept)


def _offset(heap: int, radius: float) -> float:
    step = math.ceil((heap - 1) / 2) * radius * 1.7
    return (step if heap % 2 else -step) if step <= 20 else ((heap * 7.3) % 40) - 20


def _name(view: RunView, position: int) -> str:
    return clean(view.candidates[position]) if position < len(view.candidates) else f"member {position}"


def _mean(d: Drawing, scale: Range, middle: float, summary: Mapping[str, Any], name: str) -> None:
    mean, std = (summary["members"].get(part, {}).get(name) for part in ("mean", "std"))
    if not is_number(mean):
        return
    x = _x(scale, mean)
    if is_number(std):
        d.line((_x(scale, mean - std), middle), (_x(scale, mean + std), middle), "mean-mark")
    d.line((x, middle - 15), (x, middle + 15), "mean-mark")
