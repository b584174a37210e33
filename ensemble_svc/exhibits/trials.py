"""The trials of a search as its run folder has them: members of equal values together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from ensemble_svc.store.lineage import settings_of


@dataclass(frozen=True)
class Trial:
    """The members that share the searched keys' values."""

    number: int
    """From 0, in the order in which they were asked for."""
    values: Mapping[str, Any]
    """Of the searched keys, those in force at the end; one that the trial does not have is absent."""
    value: float | None
    """Of the metric on held-out rows, the mean over its members; None where none of them has a finite one."""
    error: float | None
    """Standard error of that mean; None for a lone member."""
    epochs: int
    """Epochs of the member that trained longest."""
    ended: str
    """Why it ended: ``done``, ``stopped``, ``failed``, ``diverged``, …"""
    reason: str
    members: tuple[str, ...]


def trials_of(space: Sequence[str], metric: str, entries: Sequence[Mapping[str, Any]]) -> list[Trial]:
    """The trials in order.

    Args:
        space: the searched keys.
        metric: what the trials are judged by.
        entries: the manifest's members.
    """
    together: dict[str, list[Mapping[str, Any]]] = {}
    for entry in sorted(entries, key=lambda entry: entry["index"]):
        own = entry.get("hyperparameters") or {}
        key = repr([(name, own.get(name)) for name in space])
        key += entry["id"] if entry.get("lineage") else ""  # a population's members are trials of their own
        together.setdefault(key, []).append(entry)
    return [_trial(number, space, metric, some) for number, some in enumerate(together.values())]


def _trial(number: int, space: Sequence[str], metric: str, some: Sequence[Mapping[str, Any]]) -> Trial:
    own = settings_of(some[0])
    scores = [score for entry in some if (score := _score(entry, metric)) is not None]
    longest = max(some, key=lambda entry: entry.get("epochs") or 0)
    status = str(longest.get("status", ""))
    return Trial(
        number,
        {name: own[name] for name in space if own.get(name) is not None},
        fmean(scores) if scores else None,
        stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None,
        int(longest.get("epochs") or 0),
        "stopped" if status == "done" and longest.get("stopped") else status,
        str(longest.get("reason") or ""),
        tuple(entry["id"] for entry in some),
    )


def _score(entry: Mapping[str, Any], metric: str) -> float | None:
    measured = entry.get("metrics") or {}
    value = (measured.get("validation") or measured.get("oob") or {}).get(metric)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
