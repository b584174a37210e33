"""A recorded run looked at as it went: its journal and its progress grow again, line by line in their times' order."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from ensemble_svc.store.progress import FILE
from ensemble_svc.store.reached import Reached


def replayed(run: Path, into: Path) -> Iterator[tuple[float, Reached]]:
    """The time of each line, seconds since 1970, and what is known then; this process seems to drive the run.

    Args:
        into: a folder that is not there yet.
    """
    into.mkdir()
    (into / ".driver.json").write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
    growing = Reached(into)
    for at, name, line in sorted(_lines(run), key=lambda one: one[0]):
        with open(into / name, "ab") as file:
            file.write(line)
        growing.update()
        if growing.begun:
            yield at, growing


def _lines(run: Path) -> Iterator[tuple[float, str, bytes]]:
    for name in ("journal.jsonl", FILE):
        for line in (run / name).read_bytes().splitlines(keepends=True):
            yield json.loads(line[line.index(b"{") :])["time"], name, line
