"""A data set in several files: a folder of them, or a pattern such as ``rows-*.parquet``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ensemble_svc.data.paths import expand, reading
from ensemble_svc.errors import DataError

TABLES = (".parquet", ".pq", ".csv", ".tsv", ".txt", ".npz")
"""Suffixes of files that can be shards."""
_MARKS = frozenset("*?[")


def find_shards(path: str, directory: Path, suffixes: Sequence[str] = TABLES) -> list[Path]:
    """The files that a path stands for, by name; the path itself where it is a file, or is not there at all.

    Args:
        path: a file, a folder of files, or a pattern.
        suffixes: of the files of a folder that count.

    Raises:
        DataError: a pattern that nothing matches, a folder without such files.
    """
    found = expand(path, directory)
    if _MARKS & set(found.name) and not found.exists():
        with reading(found.parent):
            matched = sorted(file for file in found.parent.glob(found.name) if file.is_file())
        if not matched:
            raise DataError(f"{found}: nothing there matches the pattern.")
        return matched
    if not found.is_dir():
        return [found]
    with reading(found):
        inside = sorted(f for f in found.iterdir() if f.suffix.lower() in suffixes and f.name[0] not in "._")
    if not inside:
        raise DataError(f"{found}: there are no files of rows ({', '.join(suffixes)}).")
    return inside
