"""Files as a job names them: found, seen to be plain files, and not larger inside than they may be."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ensemble_svc.errors import DataError, did_you_mean

FREE_BYTES = 1 << 30
"""Unpacked sizes up to this are always read."""
MOST_INFLATION = 200
"""Times its packed size that a larger file may unpack to; real arrays stay far below."""

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


def expand(path: str, directory: Path) -> Path:
    """``$NAME``, ``${NAME}`` and ``~`` filled in; a relative path starts at ``directory``.

    Raises:
        DataError: a variable that is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise DataError(
                f"path '{path}': the environment variable {name} is not set. "
                f"Set it (export {name}=…), or write the path itself."
            )
        return os.environ[name]

    return directory / Path(_VARIABLE.sub(value, path)).expanduser()


def find_file(path: str, directory: Path) -> Path:
    """A regular file with something in it.

    Raises:
        DataError: missing (with the nearest name beside it), empty, or a folder, pipe or device.
    """
    found = _existing(path, directory)
    if not found.is_file():
        raise DataError(f"{found}: is {'a folder' if found.is_dir() else 'a pipe or device'}, not a file.")
    if found.stat().st_size == 0:
        raise DataError(f"{found}: the file is empty.")
    return found


def find_folder(path: str, directory: Path) -> Path:
    """A folder.

    Raises:
        DataError: missing, or not a folder.
    """
    found = _existing(path, directory)
    if not found.is_dir():
        raise DataError(f"{found}: is not a folder.")
    return found


def _existing(path: str, directory: Path) -> Path:
    found = expand(path, directory)
    with reading(found):
        if found.exists():
            return found
        beside = [each.name for each in found.parent.iterdir()] if found.parent.is_dir() else []
    hint = did_you_mean(found.name, beside)
    raise DataError(f"{found}: there is no such file or folder.{hint}")


@contextmanager
def reading(path: Path, *faults: type[Exception]) -> Iterator[None]:
    """Turns what a reader raises on a damaged file into one sentence that names the file.

    Raises:
        DataError: for an OSError and for ``faults``.
    """
    caught: tuple[type[Exception], ...] = (OSError, *faults)
    try:
        yield
    except caught as fault:
        if isinstance(fault, OSError) and fault.strerror:
            raise DataError(f"{path}: cannot be read: {fault.strerror}.") from fault
        text = " ".join(str(fault).split()) or type(fault).__name__
        raise DataError(f"{path}: cannot be read, it may be damaged or cut short: {text}") from fault


def check_unpacked(path: Path, num_bytes: int) -> None:
    """Refuses a file that says it unpacks to far more than real data would (a "bomb").

    Raises:
        DataError: more than 1 GiB and more than 200 times the file's own size.
    """
    packed = path.stat().st_size
    if num_bytes > max(FREE_BYTES, MOST_INFLATION * packed):
        raise DataError(
            f"{path}: {packed:,} bytes say they unpack to {num_bytes:,}. At most 1 GiB or "
            f"{MOST_INFLATION} times the file's size is read; store it unpacked if it is honest."
        )
