"""The append-only record of a run: one JSON object a line, each with its own checksum.

Every process of a run may append (an exclusive lock and one write of whole lines). A last line that a
crash tore is ignored by readers and cut off by the next writer; damage anywhere else is named.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ensemble_svc.store.atomic import refuse, sync
from ensemble_svc.store.lines import NEWLINE, bodies, checksum, damaged, is_sound, whole

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
        return map(json.loads, (line.partition(b" ")[2] for line in whole(self.path).split(NEWLINE)[:-1]))

    def since(self, offset: int) -> tuple[list[Event], int]:
        """The whole events from a byte on, and the byte at which later ones start; for a reader that comes back.

        Events before a damaged line are returned; the next call, which starts at it, raises.

        Raises:
            CorruptArtifact: as ``events``, where the line at the byte itself is damaged.
        """
        lines, _ = whole_lines(self.path, offset)
        events: list[Event] = []
        for line in lines:
            if not is_sound(line):
                break
            events.append(json.loads(line.partition(b" ")[2]))
            offset += len(line) + 1
        if lines and not events:
            number = self.path.read_bytes()[:offset].count(b"\n") + 1
            raise damaged(self.path, number)
        return events, offset

    def of_kind(self, *kinds: str, holding: Collection[str] = ()) -> list[Event]:
        """The events of some kinds, in order.

        Args:
            holding: texts such as a pack's id or a digest; events without any of them are left out.

        Raises:
            CorruptArtifact: as ``events``.
        """
        found = bodies(whole(self.path), holding or [f'"event": "{kind}"' for kind in kinds])
        return [event for event in map(json.loads, found) if event["event"] in kinds]


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
    body = json.dumps(event, sort_keys=True, allow_nan=True).encode()
    return checksum(body) + b" " + body + NEWLINE


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
