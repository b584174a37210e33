"""The big numbers at the top of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ensemble_svc.report.bytask import titled
from ensemble_svc.report.decision import budget_used
from ensemble_svc.report.looks import look
from ensemble_svc.report.rows import Gain, MetricRow, metric_rows
from ensemble_svc.report.text import clean, count, duration
from ensemble_svc.report.view import RunView


@dataclass(frozen=True)
class Tile:
    """One number, large, with a line or two under it."""

    label: str
    number: str
    unit: str = ""
    below: str = ""
    gain: Gain | None = None
    gain_unit: str = ""


def tiles(view: RunView) -> list[Tile]:
    """Quality first, then members, time, and what was used of a search's budget."""
    quality = [tile for task, part in view.parts.items() for tile in _quality(part, task)]
    return [*quality, _finished(view), *_time(view), *_budget(view)]


def _quality(view: RunView, task: str) -> list[Tile]:
    wanted = [*view.headline, "ece"]
    labels = {look(name).label: look(name) for name in wanted}
    rows = {row.label: row for row in (metric_rows(view.summary) if view.summary else [])}
    return [
        Tile(
            label=titled(clean(task, limit=20), label),
            number=rows[label].ensemble,
            unit=face.unit,
            gain_unit=face.gain_unit,
            **_beside(view.summary, rows[label]),
        )
        for label, face in labels.items()
        if label in rows
    ]


def _beside(summary: Mapping[str, Any], row: MetricRow) -> dict[str, Any]:
    """What the ensemble is measured against: its mean member, or the best trial of a search."""
    if len(summary.get("members", {}).get("each", ())) < 2:
        return {}
    if summary.get("searched") and row.over_best:
        return {"below": "over the best trial", "gain": row.over_best}
    below = f"members {row.mean}" + (f" ± {row.std}" if row.std else "")
    return {"below": below, "gain": None if summary.get("searched") else row.over_mean}


def _finished(view: RunView) -> Tile:
    done = [member for member in view.members if member.get("status") == "done"]
    stopped = sum(bool(member.get("stopped")) for member in done)
    below = f"{stopped:,} stopped early" if stopped else "all epochs trained" if done else ""
    total, chosen = len(view.members), len(view.chosen)
    if done and chosen < len(done):
        below = f"{chosen:,} of them chosen"
    return Tile("Members", f"{len(done):,}", "" if len(done) == total else f"of {total:,}", below)


def _clock(seconds: float) -> tuple[str, str]:
    if seconds < 59.95:
        amount, _, unit = duration(seconds).partition(" ")
        return amount, unit
    minutes, rest = divmod(round(seconds), 60)
    return (f"{minutes}:{rest:02d}", "min") if minutes < 60 else (f"{minutes // 60}:{minutes % 60:02d}", "h")


def _time(view: RunView) -> list[Tile]:
    if not view.seconds:
        return []
    amount, unit = _clock(sum(view.seconds.values()))
    packs = view.manifest.get("packs") or ()
    nodes = {(member.get("where") or {}).get("node") for member in view.members} - {None}
    below = count(len(packs), "pack") + (f" on {count(len(nodes), 'machine')}" if nodes else "")
    return [Tile("Time", amount, unit, below)]


def _budget(view: RunView) -> list[Tile]:
    """The part of the budget that is nearest to its end, and each part in words."""
    share, words = budget_used(view.manifest)
    return [Tile("Budget used", f"{100 * share:.0f}", "%", words)] if words else []
