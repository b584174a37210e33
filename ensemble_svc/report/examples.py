"""Single rows in words and pictures: those that the ensemble doubts most, and those it has wrong while it is surest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ensemble_svc.report.bytask import titled
from ensemble_svc.report.text import clean, count, number, value
from ensemble_svc.report.view import RunView

FAR = 2.0
"""Deviations from the training rows' mean from which a value is marked."""
PNG = "data:image/png;base64,"


@dataclass(frozen=True)
class Cell:
    """A feature's value."""

    words: str
    tone: str
    """high or low where it is far from the training rows' mean, else empty."""
    tip: str


@dataclass(frozen=True)
class Example:
    """One row."""

    id: str
    right: bool
    """Whether it says the truth; of numbers, within two deviations."""
    said: str
    truth: str
    sure: str
    lines: tuple[str, ...]
    """That, and what else there is to tell."""
    picture: str = ""
    """A PNG as a data address; empty of tables."""
    cells: tuple[Cell, ...] = ()

    @property
    def spoken(self) -> str:
        """The picture in words."""
        return f"row {self.id}: said {self.said}, truth {self.truth}, {self.sure}"


@dataclass(frozen=True)
class Examples:
    """Rows of one kind of one task."""

    title: str
    note: str
    features: tuple[str, ...]
    rows: tuple[Example, ...]


def examples(view: RunView) -> list[Examples]:
    """Both kinds of each task; none where nothing of them was kept."""
    inputs = _inputs(view.exhibits.get("inputs") or {})
    return [
        found
        for task, part in view.parts.items()
        for kind in ("wrong", "doubtful")
        if (found := _examples(part, clean(task, limit=40), kind, inputs)).rows
    ]


@dataclass(frozen=True)
class _Inputs:
    """The stored inputs by position."""

    ids: Mapping[int, str]
    pictures: Mapping[int, str]
    cells: Mapping[int, tuple[Cell, ...]]
    features: tuple[str, ...]
    of: int


def _inputs(stored: Mapping[str, Any]) -> _Inputs:
    positions: Sequence[int] = stored.get("positions") or ()
    ids = dict(zip(positions, (clean(own, limit=30) for own in stored.get("ids") or ()), strict=False))
    pictures = dict(zip(positions, stored.get("pictures") or (), strict=False))
    lines = zip(positions, stored.get("values") or (), stored.get("unusual") or (), strict=False)
    cells = {place: tuple(map(_cell, values, far)) for place, values, far in lines}
    features = tuple(clean(name, limit=30) for name in stored.get("features") or ())
    return _Inputs(ids, pictures, cells, features, stored.get("of") or 0)


def _cell(held: Any, far: float | None) -> Cell:
    tone = "" if far is None or abs(far) < FAR else "high" if far > 0 else "low"
    tip = f"{number(far, 1, signed=True)} deviations from the training rows' mean" if far is not None else ""
    return Cell(value(held), tone, tip)


TITLES = {
    ("wrong", True): ("Wrong, and surest of it", "the most confident mistakes first"),
    ("wrong", False): (
        "Farthest off, for how sure it was",
        "by their error in the prediction's own deviations",
    ),
    ("doubtful", True): ("What it doubts most", "by the entropy of its prediction"),
    ("doubtful", False): ("What it doubts most", "by the variance of its prediction"),
}
"""By kind, and whether it is of classes: heading and order."""


def _examples(view: RunView, task: str, kind: str, inputs: _Inputs) -> Examples:
    facts: Sequence[Mapping[str, Any]] = (view.shown.get("rows") or {}).get(kind) or ()
    make = _of_classes if "confusion" in view.shown else _of_numbers
    rows = tuple(make(view, fact, inputs) for fact in facts)
    title, order = TITLES[kind, "confusion" in view.shown]
    note = f"{clean(view.split or '', limit=40)} rows, {order}".strip()
    if inputs.features and inputs.of > len(inputs.features):
        note += f"; of {inputs.of:,} features those in which they are farthest from the training rows"
    return Examples(titled(task, title), note, inputs.features, rows)


def _of_classes(view: RunView, fact: Mapping[str, Any], inputs: _Inputs) -> Example:
    place, members = fact["position"], len(view.chosen)
    right = fact["said"] == fact["truth"]
    sure = f"{_percent(fact['confidence'])} sure"
    more = [] if right else [f"{_percent(fact['truth_probability'])} for the truth"]
    more += [f"{fact['agree']:,} of {count(members, 'member')}"] if members > 1 else []
    return Example(
        id=inputs.ids.get(place, str(place)),
        right=right,
        said=_class(view, fact["said"]),
        truth=_class(view, fact["truth"]),
        sure=sure,
        lines=(sure, *more),
        picture=_address(inputs.pictures.get(place)),
        cells=inputs.cells.get(place, ()),
    )


def _of_numbers(_view: RunView, fact: Mapping[str, Any], inputs: _Inputs) -> Example:
    place, sure = fact["position"], f"± {', '.join(map(number, fact['spread']))}"
    mean, truth = (tuple(map(number, fact[name])) for name in ("mean", "truth"))
    return Example(
        id=inputs.ids.get(place, str(place)),
        right=fact["off"] <= FAR,
        said=", ".join(mean),
        truth=", ".join(truth),
        sure=sure,
        lines=(sure, f"{number(fact['off'], 1)} deviations off"),
        picture=_address(inputs.pictures.get(place)),
        cells=inputs.cells.get(place, ()),
    )


def _class(view: RunView, number_of: int) -> str:
    return clean(view.classes[number_of], limit=30) if number_of < len(view.classes) else str(number_of)


def _percent(share: float) -> str:
    return f"{number(100 * share, 1)} %"


def _address(picture: str | None) -> str:
    return f"{PNG}{picture}" if picture else ""
