"""The ends of epochs as the driver hears of them, one JSON object a line: for looking at, never to go on from.

The journal says what is done; between two of its events this says how the members do. Lines are neither synced nor
checked: one that a crash tore is passed over.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble_svc.plan.plan import index_of
from ensemble_svc.plan.progress import MemberProgress, Progress
from ensemble_svc.store.journal import whole_lines

FILE = "progress.jsonl"


@dataclass(frozen=True)
class Point:
    """A member at the end of an epoch."""

    index: int
    status: str
    epoch: int
    train_loss: float | None
    metric: float | None
    """None where there is no validation split, or no number."""


@dataclass(frozen=True)
class Tick:
    """A pack at the end of an epoch, with the members that trained in it."""

    time: float
    """Seconds since 1970."""
    pack: str
    epoch: int
    epochs: int
    seconds: float
    """Since this attempt at the slot began."""
    metric: str
    """Name of the validation metric; empty where there is none."""
    note: str
    points: tuple[Point, ...]


def note_progress(run: Path, progress: Progress) -> None:
    """Add the end of an epoch; a folder that cannot be written stops no training."""
    own = [m for m in progress.members if m.status == "training" or m.epoch == progress.epoch]
    line = {
        "time": time.time(),
        "pack": progress.pack,
        "epoch": progress.epoch,
        "epochs": progress.epochs,
        "seconds": round(progress.seconds, 3),
        "metric": next((m.metric_name for m in own if m.metric_name), ""),
        "note": progress.note,
        "points": [_point(member) for member in own],
    }
    with suppress(OSError), open(run / FILE, "ab") as file:
        file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")


def ticks_since(run: Path, offset: int) -> tuple[list[Tick], int]:
    """The ends of epochs from a byte of the file on, and the byte at which later ones start."""
    lines, end = whole_lines(run / FILE, offset)
    return list(_ticks(lines)), end


def _ticks(lines: list[bytes]) -> Iterator[Tick]:
    for line in lines:
        with suppress(ValueError, TypeError, KeyError):
            found = json.loads(line)
            found["points"] = tuple(Point(*point) for point in found["points"])
            yield Tick(**found)


def _point(member: MemberProgress) -> list[Any]:
    return [
        index_of(member.id),
        member.status,
        member.epoch,
        _short(member.train_loss),
        _short(member.metric),
    ]


def _short(value: float | None) -> float | None:
    """Six digits are enough to look at."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None
