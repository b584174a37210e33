"""How a probe's child writes what it found."""

from __future__ import annotations

import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

Measures = Mapping[str, tuple[str, float]]
"""Name → unit and value."""


def write(measures: Measures, out: str) -> None:
    """Write the measures where the harness looks for them."""
    found = {name: {"unit": unit, "value": value} for name, (unit, value) in measures.items()}
    Path(out).write_text(json.dumps({"measures": found}))


def arguments() -> tuple[list[str], bool]:
    """The command's words, and whether it shall be tiny."""
    words = sys.argv[1:]
    return [word for word in words if not word.startswith("--")], "--tiny" in words


def seconds_of(action: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def forget_peak() -> int:
    """Bytes of the resident set now, which is the peak from here on."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def status(name: str) -> int:
    """Bytes that Linux tells of this process: ``VmRSS``, or ``VmHWM``, the peak."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), flags=re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def interleaved(actions: Mapping[str, Callable[[], float]], *, repeats: int) -> dict[str, float]:
    """Median of what each action returns, the actions taking turns."""
    values: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            values[name].append(action())
    return {name: statistics.median(found) for name, found in values.items()}
