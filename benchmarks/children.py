"""Fresh processes, one at a time: what each wrote, how long it lived, how busy the machine was before."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "benchmarks" / "peers" / ".venv" / "bin" / "python"
LONGEST_S = 900
"""A child that lives longer is ended and counts as failed."""


class ChildFailed(Exception):
    """A child ended without a result; the message is its last line."""


def run_module(module: str, arguments: Sequence[str], *, python: Path | None = None) -> dict[str, Any]:
    """Run ``python -m module *arguments OUT``; what it wrote to OUT, with ``whole_s`` from start to end.

    Raises:
        ChildFailed: it failed, or wrote nothing, or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        out, log = Path(folder) / "out.json", Path(folder) / "log"
        command = [str(python or sys.executable), "-m", module, *_with_out(arguments, str(out))]
        seconds, status = run_command(command, log)
        if status != 0 or not out.is_file():
            raise ChildFailed(_last_line(log) or f"status {status}")
        return {**json.loads(out.read_text()), "whole_s": seconds}


def run_command(command: Sequence[str], log: Path) -> tuple[float, int]:
    """Wall seconds and status of a command in the repository's folder; its output goes to ``log``.

    Raises:
        ChildFailed: it took longer than LONGEST_S.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as file:
        began = time.perf_counter()
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True
        )
        try:
            status = child.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            raise ChildFailed(f"took longer than {LONGEST_S} s") from None
        finally:
            _end_group(child)
        return time.perf_counter() - began, status


def load_average() -> float:
    """Runnable processes over the last minute: 0 on a quiet machine, more than its cores on a busy one."""
    return round(os.getloadavg()[0], 2)


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """End what the child left behind of the session that it was given, and the child itself."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _with_out(arguments: Sequence[str], out: str) -> list[str]:
    """Flags stand behind the output file."""
    flags = [word for word in arguments if word.startswith("--")]
    return [*(word for word in arguments if not word.startswith("--")), out, *flags]


def _last_line(log: Path) -> str:
    """The last line that says something, files by their names alone."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return re.sub(r"(/[\w.@-]+)+/", "", lines[-1])[:200] if lines else ""
