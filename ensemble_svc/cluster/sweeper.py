"""Ends an embedded Ray whose driver is gone, however it went: run as a program by ``session``.

It waits for the end of its standard input, which the driver holds open. When a driver is killed, Ray's
workers go on for a second or two and its agents for a minute; a run that is resumed meanwhile would not
be alone in its folder. Imports nothing of ours, for it starts with every session.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path


def processes_of(folder: Path) -> list[int]:
    """Those whose environment names a file in the folder, as all processes of its Ray do."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"={folder}/".encode() in environment.read_bytes():
                found.append(int(environment.parent.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def sweep(folder: Path) -> None:
    """Kill what still runs there and remove the folder."""
    for pid in processes_of(folder):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    sweep(Path(sys.argv[1]))
