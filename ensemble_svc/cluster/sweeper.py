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
import time
from pathlib import Path


def processes_of(folder: Path) -> list[int]:
    """Every process of the Ray that lives in the folder, and what those have started."""
    pids = [int(process.name) for process in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if pid != os.getpid() and _belongs(Path("/proc", str(pid)), folder)]


def _belongs(process: Path, folder: Path) -> bool:
    """By its environment, or, where Ray has written a title over that, by its title and its open logs."""
    try:
        if f"={folder}/".encode() in (process / "environ").read_bytes():
            return True
        titled = (process / "cmdline").read_bytes().startswith(b"ray")
        return titled and any(
            os.readlink(link).startswith(f"{folder}/") for link in (process / "fd").iterdir()
        )
    except OSError:
        return False


def sweep(folder: Path, *, rounds: int = 20) -> None:
    """Kill what still runs there, until nothing is found, and remove the folder."""
    for _ in range(rounds):
        pids = processes_of(folder)
        if not pids:
            break
        for pid in pids:
            _kill(pid)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    sweep(Path(sys.argv[1]))
