"""The append-only record of a run: one JSON object a line, each with its own checksum.

Every process of a run may append (an exclusive lock and one write of whole lines). A last line that a
crash tore is ignored by readers and cut off by the next writer; damage anywhere else is named.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from ensemble_svc.errors import CorruptArtifact
from ensemble_svc.store.atomic import refuse, sync

Event = dict[str, Any]


class Journal:
    """The journal at ``path``; the file appears with the first event."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, kind: str, **facts: Any) -> Event:
        """Add one event and return it once it is on the disk.

        Raises:
            StoreError: the disk is full or the folder is not writable.
        """
        return self.append_all(kind, [facts])[0]

    def append_all(self, kind: str, facts: Iterable[Mapping[str, Any]]) -> list[Event]:
        """Add several events of one kind, with one sync; a crash inside leaves the first ones, whole.

        Raises:
            StoreError: as ``append``.
        """
        events = [{"event": kind, "time": time.time(), **some} for some in facts]
        try:
            new = not self.path.exists()
            with open(self.path, "a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                _cut_torn_line(file.fileno())
                file.write(b"".join(map(_line, events)))
                file.flush()
                os.fsync(file.fileno())
            if new:
                sync(self.path.parent)
        except OSError as fault:
            refuse(fault, self.path)
        return events

    def events(self) -> Iterator[Event]:
        """All events in order.

        Raises:
            CorruptArtifact: a line other than the last is not what was written.
        """
        if not self.path.exists():
            return
        lines = self.path.read_bytes().split(b"\n")
        for number, line in enumerate(lines[:-1], 1):
            yield _parse(line, number, self.path)

    def since(self, offset: int) -> tuple[list[Event], int]:
        """The whole events from a byte on, and the byte at which later ones start; for a reader that comes back.

        Events before a damaged line are returned; the next call, which starts at it, raises.

        Raises:
            CorruptArtifact: as ``events``, where the line at the byte itself is damaged.
        """
        lines, _ = whole_lines(self.path, offset)
        events: list[Event] = []
        for line in lines:
            if (event := _event(line)) is None:
                break
            events.append(event)
            offset += len(line) + 1
        if lines and not events:
            number = self.path.read_bytes()[:offset].count(b"\n") + 1
            raise _damaged(self.path, number)
        return events, offset

    def of_kind(self, *kinds: str) -> list[Event]:
        """The events of some kinds, in order."""
        return [event for event in self.events() if event["event"] in kinds]


def whole_lines(path: Path, offset: int) -> tuple[list[bytes], int]:
    """The ended lines of a growing file from a byte on, and the byte after them; none of a file that is not there."""
    if not path.exists():
        return [], 0
    with open(path, "rb") as file:
        file.seek(offset)
        body = file.read()
    ended = body[: body.rfind(b"\n") + 1]
    return ended.split(b"\n")[:-1], offset + len(ended)


def _line(event: Event) -> bytes:
    body = json.dumps(event, sort_keys=True, allow_nan=True)
    return f"{_checksum(body)} {body}\n".encode()


def _checksum(body: str) -> str:
    return sha256(body.encode()).hexdigest()[:16]


def _parse(line: bytes, number: int, path: Path) -> Event:
    event = _event(line)
    if event is None:
        raise _damaged(path, number)
    return event


def _event(line: bytes) -> Event | None:
    """What a line records; None where it is not what was written."""
    try:
        checksum, body = line.decode().split(" ", 1)
        if checksum == _checksum(body):
            event: Event = json.loads(body)
            return event
    except ValueError:
        pass
    return None


def _damaged(path: Path, number: int) -> CorruptArtifact:
    return CorruptArtifact(
        f"{path}, line {number}: damaged. Remove that line to go on without what it recorded; "
        "the members it spoke of are trained again."
    )


def _cut_torn_line(handle: int) -> None:
    """Drop the bytes after the last newline, which a crash left behind."""
    size = os.fstat(handle).st_size
    step, keep = 65536, size
    while keep:
        start = max(0, keep - step)
        block = os.pread(handle, keep - start, start)
        newline = block.rfind(b"\n")
        if newline >= 0:
            keep = start + newline + 1
            break
        keep = start
    if keep != size:
        os.ftruncate(handle, keep)
