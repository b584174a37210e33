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

import torch

from ensemble_svc.errors import CorruptArtifact
from ensemble_svc.store.tensors import Tensors

PIECE_BYTES = 4 << 20
"""Read at once: small enough that what was read is still in the processor's cache when it is worked on."""
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


def places(path: Path) -> dict[str, Place]:
    """The tensors of a file by name, without reading them.

    Raises:
        CorruptArtifact: no tensor file, or one that is cut short.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
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


def cuts(place: Place, *, piece_bytes: int = PIECE_BYTES) -> list[slice]:
    """The rows of a stacked tensor in order, about ``piece_bytes`` of all members together; at least one."""
    num_members, num_rows = place.shape[:2]
    step = max(1, piece_bytes // max(1, num_members * place.row_bytes))
    return [slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step)]


def read_rows(path: Path, known: dict[str, Place], names: Sequence[str], rows: slice) -> Tensors:
    """Some rows [K, n, …] of stacked tensors [K, N, …].

    Args:
        known: as ``places`` found them.
        rows: from start to stop, within N.

    Raises:
        CorruptArtifact: a file that is shorter than it was.
    """
    number, found = rows.stop - rows.start, Tensors()
    file = os.open(path, os.O_RDONLY)
    try:
        for name in names:
            one = known[name]
            found[name] = torch.empty((one.shape[0], number, *one.shape[2:]), dtype=one.dtype)
            into = found[name].view(torch.uint8).flatten().numpy().data
            size = number * one.row_bytes
            for k in range(one.shape[0]):
                at = one.begin + (k * one.shape[1] + rows.start) * one.row_bytes
                if os.preadv(file, [into[k * size : (k + 1) * size]], at) != size:
                    raise CorruptArtifact(f"{path} ends before row {rows.stop} of {name}.")
    finally:
        os.close(file)
    return found
