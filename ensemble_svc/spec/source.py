"""From a path or raw bytes to text that is safe to parse and to print."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from ensemble_svc.errors import Fault, SpecError, did_you_mean

MAX_BYTES = 1 << 20
MAX_LINE_LENGTH = 10_000
MAX_LINES = 20_000

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"


def read_text(text: str | bytes | Path) -> str:
    """Checked text: UTF-8, printable, of bounded size and line length.

    Args:
        text: the text itself, its bytes, or the path of a regular file.

    Raises:
        SpecError: it is none of that; with the line where there is one.
    """
    if isinstance(text, Path):
        text = _read_file(text)
    if isinstance(text, bytes):
        text = _decoded(text)
    _check_size(text)
    if found := _UNPRINTABLE.search(text):
        what = f"the character U+{ord(found[0]):04X} cannot stand in a text file; remove it"
        raise SpecError([Fault("", what, line_of(text, found.start()))])
    lines = text.split("\n")
    if len(lines) > MAX_LINES:
        raise SpecError(f"more than {MAX_LINES:,} lines; a job file has far fewer")
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_LINE_LENGTH:
            raise SpecError([Fault("", f"a line of more than {MAX_LINE_LENGTH:,} characters", number)])
    return text


def escaped(text: str, *, limit: int = 60) -> str:
    """``text`` on one line without control characters, shortened in its middle beyond ``limit``."""
    if len(text) > limit:
        half = limit // 2 - 2
        text = f"{text[:half]}…{text[-half:]}"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def line_of(text: str, position: int) -> int:
    """1-based line of the character at ``position``."""
    return text.count("\n", 0, position) + 1


def _read_file(path: Path) -> bytes:
    """At most a little more than ``MAX_BYTES`` of a regular file; never waits on a pipe or a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise SpecError(f"there is no such file.{_near(path)}", escaped(str(path), limit=300)) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SpecError(f"cannot be opened: {reason}", escaped(str(path), limit=300)) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
            raise SpecError(f"is {what}, not a file", escaped(str(path), limit=300))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)


def _near(path: Path) -> str:
    try:
        return did_you_mean(path.name, [near.name for near in path.parent.glob("*.y*ml")])
    except OSError:
        return ""


def _check_size(text: str | bytes) -> None:
    if len(text) > MAX_BYTES:
        raise SpecError(f"larger than {MAX_BYTES >> 20} MiB; a job file holds a few kilobytes")


def _decoded(raw: bytes) -> str:
    _check_size(raw)
    if raw.startswith(_UTF16):
        raise SpecError([Fault("", "the file is UTF-16; save it as UTF-8", 1)])
    if raw.startswith(_BOM):
        raise SpecError([Fault("", "a byte-order mark; save the file as UTF-8 without BOM", 1)])
    if (position := raw.find(b"\0")) >= 0:
        line = raw.count(b"\n", 0, position) + 1
        raise SpecError([Fault("", "a NUL byte; the file is binary or UTF-16, not UTF-8 text", line)])
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SpecError([Fault("", f"the byte 0x{raw[error.start]:02x} is not UTF-8 text", line)]) from error
