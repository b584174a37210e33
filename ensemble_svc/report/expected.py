"""What training was expected to take, against what it took."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ensemble_svc.report.text import DASH, duration, is_number, memory, number

SOURCES = {"formula": "by formula", "measured": "from measured steps"}


@dataclass(frozen=True)
class Expectation:
    """One quantity: both values in words, and the first over the second."""

    name: str
    forecast: str
    actual: str
    ratio: str


@dataclass(frozen=True)
class Expected:
    """The forecast of a run's last training beside what came."""

    source: str
    """Where the forecast came from, in words."""
    rows: tuple[Expectation, ...]


def expected(manifest: Mapping[str, Any]) -> Expected | None:
    """The comparison, or None where nothing was forecast or training has not ended."""
    forecast, actual = manifest.get("forecast"), manifest.get("actual")
    if not forecast or not actual:
        return None
    most = "at most " if forecast.get("at_most") else ""
    rows = [
        _row("Wall time", "seconds", forecast, actual, duration, most=most),
        _row("Device-hours", "device_hours", forecast, actual, number, most=most),
        _row("Peak memory of a slot", "peak_memory_bytes", forecast, actual, memory),
    ]
    return Expected(SOURCES.get(forecast.get("by", ""), ""), tuple(rows))


def _row(
    name: str,
    key: str,
    forecast: Mapping[str, Any],
    actual: Mapping[str, Any],
    spelled: Callable[[Any], str],
    *,
    most: str = "",
) -> Expectation:
    hoped, came = forecast.get(key), actual.get(key)
    ratio = f"{hoped / came:.2f}" if is_number(hoped) and is_number(came) and came > 0 else DASH
    return Expectation(name, f"{most}{spelled(hoped)}", spelled(came), ratio)
