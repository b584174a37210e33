"""Which runs a folder holds, and whether somebody drives one; seen from outside, also from another machine."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path


def driven(run: Path) -> bool:
    """Whether a process drives the run: as far as can be told, where that is on another machine."""
    try:
        owner = json.loads((run / ".driver.json").read_text())
        pid, host = int(owner["pid"]), owner["host"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if host != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def runs_in(path: Path) -> list[Path]:
    """The run folder itself, or those in a storage folder, two levels deep at most; by name."""
    if _is_run(path):
        return [path]
    found = [p for pattern in ("*", "*/*") for p in path.glob(pattern) if p.is_dir() and _is_run(p)]
    return sorted(found)


def _is_run(path: Path) -> bool:
    return (path / "journal.jsonl").is_file()


def now() -> float:
    """The time, as the journal has it."""
    return time.time()
