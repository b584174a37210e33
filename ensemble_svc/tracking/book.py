"""What a tracker is told of a run, whichever it is: plain values read from the run folder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.atomic import read_verified
from ensemble_svc.store.history import Columns, decode_history
from ensemble_svc.store.lineage import settings_of
from ensemble_svc.store.run import Run
from ensemble_svc.tracking.naming import mark_of, settings_in_words

OPEN = frozenset({"pending"})
"""Members that there is nothing to tell of yet."""


@dataclass(frozen=True)
class Point:
    """One number of one epoch."""

    name: str
    value: float
    step: int
    time: float
    """Seconds since 1970; the same whenever it is read."""


@dataclass(frozen=True)
class Page:
    """A member as it ended."""

    id: str
    digest: str
    status: str
    reason: str
    seal: str
    """Changes when the member is trained anew, and with nothing else."""
    ended: float
    values: Mapping[str, str]
    points: tuple[Point, ...]
    finals: Mapping[str, float]
    chosen: bool


@dataclass(frozen=True)
class Book:
    """A run as it ended."""

    mark: str
    """The same for the same run folder, also where it was moved or goes on."""
    name: str
    job: JobSpec
    began: float
    ended: float
    number: int
    """How often it has ended, from 1."""
    seal: str
    """Changes when the numbers of the ensemble do."""
    finals: Mapping[str, float]
    """The ensemble's, by split and metric."""
    report: str
    """Hash of ``report.html``; empty where there is none."""
    pages: tuple[Page, ...]


def book_of(run: Run) -> Book:
    """Everything there is to tell of a run.

    Raises:
        CorruptArtifact: a file of the run is not what was written.
    """
    manifest, events = run.manifest(), list(run.journal.events())
    begins = [event["time"] for event in events if event["event"] == "begin"]
    ends = [event["time"] for event in events if event["event"] == "finished"]
    times = {event["digest"]: event["time"] for event in events if event["event"] == "sealed"}
    has_metrics = "metrics.json" in manifest["files"]
    chosen = {name.partition("#")[0] for name in manifest["ensemble"].get("members") or ()}
    return Book(
        mark=mark_of(run.journal.path),
        name=run.path.resolve().name,
        job=run.job(),
        began=begins[0],
        ended=ends[-1] if ends else begins[-1],
        number=max(1, len(ends)),
        seal=manifest["files"].get("metrics.json", "")[:16] + f"-{manifest['ensemble']['version']}",
        finals=dict(_flat({s: m["ensemble"] for s, m in run.metrics().items()})) if has_metrics else {},
        report=manifest["files"].get("report.html", ""),
        pages=tuple(
            _page(run, entry, times.get(entry["digest"], begins[-1]), chosen=entry["id"] in chosen)
            for entry in manifest["members"]
            if entry["status"] not in OPEN
        ),
    )


def _page(run: Run, entry: Mapping[str, Any], ended: float, *, chosen: bool) -> Page:
    name = f"members/{entry['id']}/history.parquet"
    sha = entry["files"].get(name, "")
    history = decode_history(read_verified(run.path / name, sha)) if sha else {}
    return Page(
        id=entry["id"],
        digest=entry["digest"],
        status=entry["status"],
        reason=entry["reason"],
        seal=sha[:16] or "failed",
        ended=ended,
        values=settings_in_words(entry["index"], settings_of(entry)),
        points=tuple(_points(history, ended)),
        finals=dict(_flat(entry["metrics"])),
        chosen=chosen,
    )


def _points(history: Columns, ended: float) -> Iterator[Point]:
    """The numbers by epoch, each at the time it ended if the last one ended when the member was sealed."""
    values = zip(*(column.tolist() for column in history.values()), strict=True)
    rows = [dict(zip(history, row, strict=True)) for row in values]
    after_s = sum(float(row.get("seconds", 0.0)) for row in rows)
    for row in rows:
        after_s -= float(row.get("seconds", 0.0))
        for name, value in row.items():
            if name != "epoch" and math.isfinite(value):
                yield Point(str(name), float(value), int(row["epoch"]), ended - after_s)


def _flat(metrics: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    for split, own in metrics.items():
        for name, value in own.items():
            if isinstance(value, int | float) and math.isfinite(value):
                yield f"{split}/{name}", float(value)
