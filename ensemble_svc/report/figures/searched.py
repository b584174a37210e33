"""What was searched: each hyper-parameter against the metric that its trials were judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ensemble_svc.report.figure import Figure, Numbers
from ensemble_svc.report.looks import Look, look
from ensemble_svc.report.panel import Panel, Range, width_of
from ensemble_svc.report.picked import spread
from ensemble_svc.report.search import WIDE
from ensemble_svc.report.text import clean, is_number
from ensemble_svc.report.view import RunView
from ensemble_svc.spec.spaces import laws_by_key
from ensemble_svc.store.lineage import settings_of

PLOTS_UP_TO = 12
DOTS_UP_TO = 1000
"""Members drawn at most in a figure: the chosen, and others evenly spread."""
KINDS = ("stop-dot", "member-dot", "ensemble-dot")
WORDS = ("stopped before the last epoch", "a member", "in the ensemble")
Dot = tuple[float, float, str, str]
"""Value, metric, kind of mark, words."""


def draw(view: RunView) -> list[Figure]:
    """A figure for each searched key with numbers for values; none without a search."""
    search = view.job.get("search") or {}
    face = look(search.get("metric") or "nll")
    space = laws_by_key(search.get("space") or {})
    found = {key: _dots(view, key, face) for key in space}
    found = {key: dots for key, dots in found.items() if len({x for x, *_ in dots}) > 1}
    shown = list(found.items())[:PLOTS_UP_TO]
    width = width_of(len(shown))
    return [_figure(key, space[key], dots, face, width) for key, dots in shown]


def _dots(view: RunView, key: str, face: Look) -> list[Dot]:
    chosen = set((view.manifest.get("ensemble") or {}).get("members") or ())
    own = [place for place, member in enumerate(view.members) if member["id"] in chosen]
    dots = list[Dot]()
    for place in spread(len(view.members), DOTS_UP_TO, own[:DOTS_UP_TO]):
        member = view.members[place]
        x = settings_of(member).get(key)
        measured = member.get("metrics") or {}
        y = (measured.get("validation") or measured.get("oob") or {}).get(face.name)
        if is_number(x) and is_number(y):
            kind = KINDS[2] if member["id"] in chosen else KINDS[0] if member.get("stopped") else KINDS[1]
            dots.append((x, y, kind, f"{clean(member['id'])}: {x:.4g}, {face.show(y)}"))
    return sorted(dots, key=lambda dot: KINDS.index(dot[2]))


def _figure(key: str, law: Mapping[str, Any], dots: Sequence[Dot], face: Look, width: float) -> Figure:
    title = clean(key, limit=80)
    panel = Panel(
        _range([x for x, *_ in dots], log="loguniform" in law, auto="choice" in law),
        _range([y for _, y, *_ in dots], face, auto=face.factor == 1),
        label=f"{title} against validation {face.label}",
        x_label=title,
        y_label=f"validation {face.label} {face.unit}".strip(),
        width=width,
    )
    for x, y, kind, words in dots:
        ((across, down),) = panel.points([x], [y])
        panel.pen.dot((across, down), 4.2 if kind == KINDS[2] else 3.2, kind, words)
    present = {kind for *_, kind, _ in dots}
    legend = tuple((kind, words) for kind, words in zip(KINDS, WORDS, strict=True) if kind in present)
    rows = [(words.partition(": ")[0], f"{x:.4g}", face.bare(y)) for x, y, _, words in sorted(dots)]
    told = Numbers.of(("member", title, f"{face.label} {face.unit}".strip()), rows, spread=True)
    return Figure(title, panel.drawing.markup(), "", legend, numbers=told)


def _range(
    values: Sequence[float], face: Look | None = None, *, log: bool = False, auto: bool = False
) -> Range:
    """What an axis spans; ``auto`` makes it logarithmic where the values span much."""
    low, high = min(values), max(values)
    if 0 < low < high and (log or (auto and high / low > WIDE)):
        return Range(low / 1.1, high * 1.1, log=True)
    return Range.over(values, factor=face.factor, within=face.span) if face else Range.over(values)
