"""Files that are either the old bytes or the new ones, never something between.

Temporary file in the *same* folder, flush, fsync, rename, fsync of the folder: a rename is atomic
only within one file system, and only a synced folder keeps it after a power cut.
"""

from __future__ import annotations

import errno
import os
from hashlib import file_digest, sha256
from pathlib import Path
from typing import NoReturn

from ensemble_svc.errors import CorruptArtifact, StoreError

TEMPORARY = ".tmp-"
"""Prefix of files that were never finished; readers ignore them."""

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}


def write_atomic(path: Path, body: bytes) -> str:
    """Put ``body`` at ``path``; returns its SHA-256.

    Raises:
        StoreError: disk full, no permission, path not a folder; the old file, if any, is intact.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as fault:
        temporary.unlink(missing_ok=True)
        refuse(fault, path)
    return sha256(body).hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the folder's own entries durable."""
    handle = os.open(folder, os.O_RDONLY)
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
    if sha256(body).hexdigest() != expected:
        raise CorruptArtifact(
            f"{path} is damaged: its SHA-256 is not the recorded {expected[:12]}…; {_REMEDY}"
        )
    return body


_REMEDY = "run the same training command again to make it anew"


def hash_file(path: Path) -> str | None:
    """SHA-256 of a file, or None where there is none."""
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()
