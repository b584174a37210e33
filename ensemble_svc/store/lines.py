"""The lines of a journal, checked once for each process and found by what stands in them.

A run of a thousand slots reads its journal thousands of times, mostly for a handful of events. So the lines that a
process has checked are kept, and compared byte for byte when the file is read again; only lines that were added are
checked, and only those that are asked for are parsed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from ensemble_svc.errors import CorruptArtifact

MOST_KEPT = 4
"""Journals whose checked lines a process keeps."""
NEWLINE = b"\n"
_checked: dict[Path, bytes] = {}


def whole(path: Path) -> bytes:
    """All lines that have an end; none of a file that is not there.

    Raises:
        CorruptArtifact: a line other than the last is not what was written.
    """
    if not path.exists():
        return b""
    body = path.read_bytes()
    known = _checked.pop(path, b"")
    if not body.startswith(known):
        known = b""
    lines = body[: body.rfind(b"\n") + 1]
    added = lines[len(known) :].split(b"\n")[:-1]
    for number, line in enumerate(added, 1):
        if not is_sound(line):
            raise damaged(path, known.count(NEWLINE) + number)
    _checked[path] = lines
    while len(_checked) > MOST_KEPT:
        del _checked[next(iter(_checked))]
    return lines


def damaged(path: Path, number: int) -> CorruptArtifact:
    """What to raise for a line that is not what was written."""
    return CorruptArtifact(
        f"{path}, line {number}: damaged. Remove that line to go on without what it recorded; "
        "the members it spoke of are trained again."
    )


def is_sound(line: bytes) -> bool:
    """Whether a line is its own checksum, a space and its body."""
    sum_, _, body = line.partition(b" ")
    return sum_ == checksum(body)


def checksum(body: bytes) -> bytes:
    """What stands before a line's body."""
    return sha256(body).hexdigest()[:16].encode()


def bodies(lines: bytes, needles: Iterable[str]) -> Iterator[bytes]:
    """The bodies of the lines that hold any of these texts, in order."""
    starts = set[int]()
    for needle in needles:
        text = needle.encode()
        at = lines.find(text)
        while at >= 0:
            starts.add(lines.rfind(NEWLINE, 0, at) + 1)
            at = lines.find(text, lines.find(NEWLINE, at))
    for start in sorted(starts):
        yield lines[lines.find(b" ", start) + 1 : lines.find(NEWLINE, start)]
