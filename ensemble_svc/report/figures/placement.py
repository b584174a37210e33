"""What ran where, and how long: one bar per pack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ensemble_svc.report.drawing import Drawing
from ensemble_svc.report.figure import Figure
from ensemble_svc.report.panel import Range
from ensemble_svc.report.text import clean, count, duration, is_number
from ensemble_svc.report.view import LOST, RunView

WIDTH, LEFT, RIGHT, ROW = 1080.0, 300.0, 900.0, 25.0
BARS = 40
"""Packs drawn at most, the slowest ones."""


def draw(view: RunView) -> Figure | None:
    """Bars of the packs' wall time, labelled with their place."""
    timed = [pack for pack in view.manifest.get("packs") or () if is_number(pack.get("seconds"))]
    if not timed:
        return None
    shown = sorted(timed, key=lambda pack: -pack["seconds"])[:BARS] if len(timed) > BARS else timed
    entries = {member["id"]: member for member in view.members}
    drawing = Drawing(WIDTH, ROW * len(shown) + 30, "Wall time of each pack")
    scale = Range(0, max(pack["seconds"] for pack in shown) * 1.02 or 1.0)
    _axis(drawing, scale, ROW * len(shown) + 4)
    for row, pack in enumerate(shown):
        _bar(drawing, scale, 4 + row * ROW, pack, [entries.get(m, {}) for m in pack.get("members", ())])
    return Figure("Wall time of each pack", drawing.markup(), _caption(view, timed, shown), wide=True)


def _axis(d: Drawing, scale: Range, base: float) -> None:
    for value, _ in scale.ticks(6):
        x = LEFT + float(scale.place(value)) * (RIGHT - LEFT)
        d.line((x, 2), (x, base), "grid")
        d.text((x, base + 16), duration(value) if value else "0", "tick", "middle")


def _bar(
    d: Drawing, scale: Range, top: float, pack: Mapping[str, Any], members: Sequence[Mapping[str, Any]]
) -> None:
    lost = sum(member.get("status") in LOST for member in members)
    length = float(scale.place(pack["seconds"])) * (RIGHT - LEFT)
    d.text((LEFT - 12, top + 15), place(pack, members), "tick", "end")
    tip = f"{clean(pack.get('id', ''))}: {duration(pack['seconds'])}"
    d.box((LEFT, top + 3), max(2.0, length), ROW - 9, "lost-bar" if lost else "pack-bar", tip, round_=3)
    note = f" · {lost} lost" if lost else ""
    words = f"{count(len(pack.get('members', ())), 'member')} · {duration(pack['seconds'])}{note}"
    d.text((LEFT + length + 8, top + 15), words, "tick strong")


def place(pack: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> str:
    """Node, device and share of a pack, one short line."""
    where: Mapping[str, Any] = next((m["where"] for m in members if m.get("where")), {})
    parts = [clean(where.get(key), limit=24) for key in ("node", "device") if where.get(key)]
    parts += [f"{pack['gpus']:g} GPU"] if is_number(pack.get("gpus")) and pack["gpus"] else []
    parts += [f"{pack['cpus']:g} CPU"] if is_number(pack.get("cpus")) else []
    return " · ".join(parts)


def _caption(view: RunView, timed: Sequence[Any], shown: Sequence[Any]) -> str:
    total = sum(pack["seconds"] for pack in timed)
    wall = (view.manifest.get("seconds") or {}).get("train")
    head = f"The {len(shown)} slowest of {len(timed):,} packs. " if len(shown) < len(timed) else ""
    tail = f" in {duration(wall)} of wall time" if is_number(wall) else ""
    return f"{head}{count(len(timed), 'pack')}, {duration(total)} of training{tail}."
