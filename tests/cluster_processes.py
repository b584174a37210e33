"""Processes that a test started: who they are, and whether they have ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path


def family(pid: int) -> list[int]:
    """The process and all of its living descendants."""
    found = [pid]
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = tasks.read_text().split()
        except OSError:
            continue
        for child in children:
            found += family(int(child))
    return found


def still_running(pids: Iterable[int], *, after_s: float) -> list[int]:
    """Those that have not ended in that time; a zombie has ended."""
    until = time.monotonic() + after_s
    alive = list(pids)
    while (alive := [pid for pid in alive if _runs(pid)]) and time.monotonic() < until:
        time.sleep(0.05)
    return alive


def end(pids: Iterable[int]) -> None:
    """SIGKILL each, and wait until it has ended."""
    pids = list(pids)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    still_running(pids, after_s=5)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
