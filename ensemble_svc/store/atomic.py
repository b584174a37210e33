"""Files that are either the old bytes or the new ones, never something between.

Temporary file in the *same* folder, flush, fsync, rename, fsync of the folder: a rename is atomic
only within one file system, and only a synced folder keeps it after a power cut.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from hashlib import file_digest, sha256
from pathlib import Path
from typing import IO, NoReturn

from ensemble_svc.errors import CorruptArtifact, StoreError

TEMPORARY = ".tmp-"
"""Prefix of files that were never finished; readers ignore them."""

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}


def write_atomic(path: Path, body: bytes) -> str:
    """Put ``body`` at ``path``; returns its SHA-256.

    Raises:
        StoreError: disk full, no permission, path not a folder; the old file, if any, is intact.
    """
    return write_all({path: body})[path]


def write_all(bodies: Mapping[Path, bytes]) -> dict[Path, str]:
    """Put each body at its path, with one sync of each folder; returns their SHA-256 by path.

    Each file is old or new at every moment; together they are not one step, so what binds them must be
    recorded after this returns.

    Raises:
        StoreError: as ``write_atomic``; files that this call did not come to are as they were.
    """
    temporary = {path: path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}") for path in bodies}
    path = Path()
    try:
        changed = set[Path]()
        for path in bodies:
            changed |= _make_folder(path.parent)
        for path, body in bodies.items():
            temporary[path].write_bytes(body)
        for path in bodies:  # after all are written: the first sync carries most of what the others need
            sync(temporary[path])
        for path in bodies:
            os.replace(temporary[path], path)
        for path in changed:
            sync(path)
    except OSError as fault:
        for left in temporary.values():
            with suppress(OSError):
                left.unlink()
        refuse(fault, path)
    return {path: sha256(body).hexdigest() for path, body in bodies.items()}


def _make_folder(folder: Path) -> set[Path]:
    """Make the folder where it is not there yet; the folders whose entries change with a file in it."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return {folder, *(place.parent for place in made)}


def sweep(folder: Path) -> None:
    """Remove the files that were never finished; for whoever alone writes there."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name.startswith(TEMPORARY):
                path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file's bytes, or a folder's own entries, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refuse(fault: OSError, path: Path) -> NoReturn:
    """The operating system's error as one for the person who can mend it."""
    why = _FULL.get(fault.errno or 0, (fault.strerror or str(fault)).lower())
    remedy = "free some space" if fault.errno in _FULL else "check the path and its permissions"
    raise StoreError(
        f"cannot write {path}: {why}. What was there before is unharmed; {remedy} and run the same command again."
    ) from fault


def read_verified(path: Path, expected: str) -> bytes:
    """The file's bytes, if they are those whose SHA-256 is ``expected``.

    Raises:
        CorruptArtifact: missing file, or other bytes.
    """
    try:
        body = path.read_bytes()
    except FileNotFoundError:
        raise CorruptArtifact(f"{path} is missing; {_REMEDY}") from None
    _check_hash(path, sha256(body).hexdigest(), expected)
    return body


def open_verified(path: Path, expected: str) -> IO[bytes]:
    """As ``read_verified``, of a file that is not to be held: it is open at its start, and stays the one that was
    looked at whatever takes its place.

    Raises:
        CorruptArtifact: missing file, or other bytes.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise CorruptArtifact(f"{path} is missing; {_REMEDY}") from None
    with ExitStack() as wrong:
        wrong.enter_context(file)
        _check_hash(path, file_digest(file, "sha256").hexdigest(), expected)
        file.seek(0)
        wrong.pop_all()
    return file


def _check_hash(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise CorruptArtifact(
            f"{path} is damaged: its SHA-256 is not the recorded {expected[:12]}…; {_REMEDY}"
        )


_REMEDY = "run the same training command again to make it anew"


def hash_file(path: Path) -> str | None:
    """SHA-256 of a file, or None where there is none."""
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()
