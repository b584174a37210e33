"""Parallel coordinates: a line through the values of each trial, coloured by how good it is.

The keys stand from left to right, the most important first; the metric stands last, better at the top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ensemble_svc.exhibits.trials import Trial
from ensemble_svc.report.drawing import Drawing, Point
from ensemble_svc.report.figure import Figure, Numbers
from ensemble_svc.report.looks import Look
from ensemble_svc.report.panel import Range
from ensemble_svc.report.search import WIDE, Searched
from ensemble_svc.report.text import clean, is_number, number, value

AXES_UP_TO = 9
"""Searched keys that have an axis at most."""
LINES_UP_TO = 300
"""Trials drawn at most: the best half of so many, and others evenly spread."""
CATEGORIES_UP_TO = 12
"""Values of a categorical axis that have words at most."""
SHADES = 7
"""Colours from the best trials, 0, to the poorest."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1080.0, 400.0, 64.0, 64.0, 46.0, 10.0
SPREAD = 0.34
"""Share of the room of a category over which its trials fan out."""
LEAP = 0.42
"""Where between two axes a curve bends."""


@dataclass(frozen=True)
class Axis:
    """One key, or the metric: where on it each trial is, from 0 at the bottom to 1."""

    key: str
    head: str
    places: Mapping[int, float]
    """By the trial's number; one that does not have the key is absent."""
    ticks: Sequence[tuple[float, str]] = field(default=())


def draw(searched: Searched) -> Figure | None:
    """The figure; None for fewer than two trials with a value, or keys that do not differ."""
    ranked = searched.ranked
    keys = [key for key in searched.keys if len({repr(t.values.get(key)) for t in ranked}) > 1]
    if len(ranked) < 2 or not keys:
        return None
    axes = [_axis(key, searched, ranked) for key in keys[:AXES_UP_TO]]
    axes.append(_metric_axis(searched.face, ranked))
    label = f"Parallel coordinates: {len(ranked)} trials by {', '.join(axis.head for axis in axes)}"
    drawing = Drawing(WIDTH, HEIGHT, label)
    gap = (WIDTH - LEFT - RIGHT) / (len(axes) - 1)
    columns = [LEFT + number * gap for number in range(len(axes))]
    _lines(drawing, axes, columns, searched, ranked)
    for axis, x in zip(axes, columns, strict=True):
        _draw_axis(drawing, axis, x, last=axis is axes[-1], lacking=len(axis.places) < len(ranked))
    cut = f" The {AXES_UP_TO} most important of {len(keys)} keys." if len(keys) > AXES_UP_TO else ""
    drawn = _drawn(ranked, searched)
    some = f" {len(drawn)} of {len(ranked):,} trials are drawn." if len(drawn) < len(ranked) else ""
    legend = (
        ("shade-0", "the best seventh of the trials"),
        ("shade-3", "the middle"),
        ("shade-6", "the poorest"),
        ("pick-line", "in the ensemble"),
    )
    caption = f"Each line is a trial; where lines of one colour bundle, that value decides.{cut}{some}"
    return Figure(
        "Which settings are good",
        drawing.markup(),
        caption,
        legend,
        wide=True,
        full=True,
        numbers=_numbers(searched, keys),
    )


def _drawn(ranked: Sequence[Trial], searched: Searched) -> list[Trial]:
    """The trials to draw, the best first."""
    if len(ranked) <= LINES_UP_TO:
        return list(ranked)
    half = LINES_UP_TO // 2
    rest = ranked[half:]
    some = rest[:: -(-len(rest) // half)]
    picked = [trial for trial in rest if searched.is_chosen(trial) and trial not in some]
    return [*ranked[:half], *some, *picked]


def _axis(key: str, searched: Searched, ranked: Sequence[Trial]) -> Axis:
    held = {trial.number: trial.values[key] for trial in ranked if key in trial.values}
    head, law = searched.heads[key], searched.space[key]
    if all(map(is_number, held.values())) and len(set(held.values())) > 1:
        return _numeric(key, head, law, held)
    return _categorical(key, head, law, held)


def _numeric(key: str, head: str, law: Mapping[str, Any], held: Mapping[int, Any]) -> Axis:
    low, high = min(held.values()), max(held.values())
    log = low > 0 and ("loguniform" in law or ("choice" in law and high / low > WIDE))
    whole = all(isinstance(v, int) for v in held.values())
    scale = Range(low, high, log=log, whole=whole)
    ticks = [(float(scale.place(v)), word) for v, word in scale.ticks(5)]
    return Axis(key, head, {n: float(scale.place(v)) for n, v in held.items()}, ticks)


def _categorical(key: str, head: str, law: Mapping[str, Any], held: Mapping[int, Any]) -> Axis:
    """Trials of one value fan out by rank, the best at the top, so that the bundle shows how good they are."""
    offered = [value(v) for v in law.get("choice") or ()]
    names = {n: value(v) for n, v in held.items()}
    order = [v for v in dict.fromkeys(offered) if v in set(names.values())]
    order += [v for v in dict.fromkeys(names.values()) if v not in order]
    room, places = 1 / len(order), dict[int, float]()
    for slot, name in enumerate(order):
        middle, some = 1 - (slot + 0.5) * room, [n for n, own in names.items() if own == name]
        for place, own in enumerate(some):
            fan = 0.5 - (place + 0.5) / len(some)
            places[own] = middle + fan * SPREAD * room
    step = -(-len(order) // CATEGORIES_UP_TO)
    ticks = [
        (1 - (slot + 0.5) * room, clean(n, limit=14)) for slot, n in enumerate(order) if slot % step == 0
    ]
    return Axis(key, head, places, ticks)


def _metric_axis(face: Look, ranked: Sequence[Trial]) -> Axis:
    known = {t.number: float(t.value) for t in ranked if t.value is not None}
    low, high = min(known.values()), max(known.values())
    high = high if high > low else low + (abs(low) or 1.0) * 0.1
    log = face.factor == 1 and low > 0 and high / low > 10
    scale = Range(low, high, log=log, factor=face.factor, flipped=not face.higher_is_better)
    ticks = [(float(scale.place(v)), word) for v, word in scale.ticks(5)]
    head = f"{face.label} {face.unit}".strip()
    return Axis("", f"validation {head}", {n: float(scale.place(v)) for n, v in known.items()}, ticks)


def _height(share: float) -> float:
    return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM - 14)


def _lines(
    d: Drawing, axes: Sequence[Axis], columns: Sequence[float], searched: Searched, ranked: Sequence[Trial]
) -> None:
    rank = {trial.number: place for place, trial in enumerate(ranked)}
    drawn = sorted(_drawn(ranked, searched), key=lambda t: (searched.is_chosen(t), -rank[t.number]))
    for trial in drawn:
        points = [
            (x, _height(axis.places[trial.number]) if trial.number in axis.places else HEIGHT - BOTTOM - 4)
            for axis, x in zip(axes, columns, strict=True)
        ]
        shade = min(SHADES - 1, rank[trial.number] * SHADES // len(ranked))
        tip = searched.words(trial)
        if searched.is_chosen(trial):
            d.curve(points, "pick-halo", bend=LEAP)
            d.curve(points, "pick-line", tip, bend=LEAP)
        else:
            d.curve(points, f"trial-line shade-{shade}", tip, bend=LEAP)


def _draw_axis(d: Drawing, axis: Axis, x: float, *, last: bool, lacking: bool) -> None:
    d.line((x, _height(1)), (x, _height(0)), "axis")
    side: Point = (x + 7, 0) if last else (x - 7, 0)
    for share, word in axis.ticks:
        y = _height(share)
        d.line((x - 3, y), (x + 3, y), "axis")
        d.text((side[0], y + 3.8), word, "tick on-lines", "start" if last else "end")
    head = clean(axis.head, limit=24)
    half = 3.5 * len(head)
    d.text((min(max(x, half), WIDTH - half), TOP - 26), head, "axis-label", "middle")
    if lacking:
        d.text((x, HEIGHT - 2), "not set", "tick", "middle")


def _numbers(searched: Searched, keys: Sequence[str]) -> Numbers:
    some = keys[:AXES_UP_TO]
    head = ("trial, the best first", *(searched.heads[key] for key in some), searched.face.label)
    rows = [
        (
            f"{trial.number}{' (chosen)' if searched.is_chosen(trial) else ''}",
            *(_word(trial.values.get(key)) for key in some),
            searched.face.show(trial.value),
        )
        for trial in searched.ranked
    ]
    return Numbers.of(head, rows)


def _word(held: Any) -> str:
    return number(held) if is_number(held) else value(held)
