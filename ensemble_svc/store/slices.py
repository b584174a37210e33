"""Tensor files too large to hold: some rows of all members at a time.

Rows are read with ``pread`` into memory of our own, not mapped: the pages of a mapped file that were looked at would
count as the process's own, however large the file.

Shapes: K members, N rows, n rows of a piece.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from ensemble_svc.errors import CorruptArtifact
from ensemble_svc.store.tensors import Tensors

PIECE_BYTES = 4 << 20
"""Read at once, about."""
TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in its file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    """Bytes from the start of the file."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of one member, of tensors [K, N, …]."""
        return math.prod(self.shape[2:]) * self.dtype.itemsize

    def at(self, member: int, row: int) -> int:
        """Bytes from the start of the file to a row of a member, of tensors [K, N, …]."""
        return self.begin + (member * self.shape[1] + row) * self.row_bytes


def places(path: Path) -> dict[str, Place]:
    """The tensors of a file by name, without reading them.

    Raises:
        CorruptArtifact: no tensor file, or one that is cut short.
    """
    with path.open("rb") as file:
        return places_in(file, path)


def places_in(file: IO[bytes], path: Path) -> dict[str, Place]:
    """As ``places``, of a file that is open at its start; ``path`` is for the message alone.

    Raises:
        CorruptArtifact: as ``places``.
    """
    size = os.fstat(file.fileno()).st_size
    try:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length) if length < size else b"")
        found = {
            name: (TYPES[one["dtype"]], tuple(one["shape"]), one["data_offsets"])
            for name, one in header.items()
            if name != "__metadata__"
        }
    except (KeyError, ValueError) as fault:
        raise CorruptArtifact(f"{path} is not a tensor file of this project: {fault}") from fault
    if max((end for _, _, (_, end) in found.values()), default=0) + 8 + length != size:
        raise CorruptArtifact(f"{path} has {size} bytes, which are not those that its header tells.")
    return {
        name: Place(dtype, shape, 8 + length + begin) for name, (dtype, shape, (begin, _)) in found.items()
    }


def cuts(place: Place, *, piece_bytes: int = PIECE_BYTES, members: int | None = None) -> list[slice]:
    """The rows of a stacked tensor in order, about ``piece_bytes`` of so many members, or of all; at least one."""
    num_members, num_rows = place.shape[:2]
    step = max(1, piece_bytes // max(1, (members or num_members) * place.row_bytes))
    return [slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step)]


class Slices:
    """A tensor file that is open to be read, rows of a member at a time; to be closed by who opened it."""

    def __init__(self, path: Path, known: dict[str, Place]) -> None:
        """``known`` as ``places`` found them."""
        self._path, self._known = path, known
        self._file = os.open(path, os.O_RDONLY)

    def __enter__(self) -> Slices:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def read(self, name: str, member: int, rows: slice, into: Tensor) -> None:
        """Rows [n, …] of a member into memory that is there, contiguous and of the tensor's type.

        Raises:
            CorruptArtifact: a file that is shorter than it was.
        """
        one = self._known[name]
        memory = into.view(-1).view(torch.uint8).numpy().data
        if os.preadv(self._file, [memory], one.at(member, rows.start)) != memory.nbytes:
            raise CorruptArtifact(f"{self._path} ends before row {rows.stop} of {name}.")


def read_rows(path: Path, known: dict[str, Place], names: Sequence[str], rows: slice) -> Tensors:
    """Some rows [K, n, …] of stacked tensors [K, N, …].

    Args:
        known: as ``places`` found them.
        rows: from start to stop, within N.

    Raises:
        CorruptArtifact: a file that is shorter than it was.
    """
    found = Tensors()
    with Slices(path, known) as file:
        for name in names:
            one = known[name]
            found[name] = torch.empty((one.shape[0], rows.stop - rows.start, *one.shape[2:]), dtype=one.dtype)
            for k, into in enumerate(found[name]):
                file.read(name, k, rows, into)
    return found
