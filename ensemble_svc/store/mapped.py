"""Stacked predictions that nobody holds: written member by member, and looked at through the pages of their file.

A file is laid out before its first byte is written, so that each member's part goes to its place when it comes. Law:
the bytes are those that ``tensors.encode`` gives of the whole.

A mapped tensor looks like any other. Its pages are the file's own: the system reads them when they are looked at and
drops them when it needs room, and ``let_go`` drops them at once, so the process holds none of it. It must not be
written to.

Shapes: K members, N rows.
"""

from __future__ import annotations

import json
import math
import mmap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from weakref import WeakSet

import torch
from torch import Tensor

from ensemble_svc.errors import CorruptArtifact
from ensemble_svc.store.atomic import open_verified
from ensemble_svc.store.growing import growing
from ensemble_svc.store.slices import TYPES, Place, places_in
from ensemble_svc.store.tensors import METADATA, Tensors, check_metadata, metadata_of

Layout = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Number type and shape of each tensor, by name."""
Put = Callable[[str, int, Tensor], None]
"""(name, first, part): the tensor's slices from the first on are those of the part."""
_ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "U8", "BOOL")
"""Of the tensors in a file, so that each begins where its numbers may."""
_NAMES = {dtype: name for name, dtype in TYPES.items()}
_maps = WeakSet[mmap.mmap]()


@contextmanager
def laid_out(path: Path, layout: Layout, meta: Mapping[str, Any]) -> Iterator[Put]:
    """A tensor file to be filled; it takes its place when the block ends, and is gone when the block fails.

    Raises:
        StoreError: disk full, no permission; the old file, if any, is intact.
        CorruptArtifact: a part of another type or shape than the layout's.
    """
    header, known = _laid(layout, meta)
    with growing(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(max(_end(one) for one in known.values()))

        def put(name: str, first: int, part: Tensor) -> None:
            _put(file, path, name, known[name], first, part)

        yield put


def _put(file: IO[bytes], path: Path, name: str, place: Place, first: int, part: Tensor) -> None:
    fits = first + len(part) <= place.shape[0] and tuple(part.shape[1:]) == place.shape[1:]
    if part.dtype != place.dtype or not fits:
        raise CorruptArtifact(
            f"{path}: {name} {first} and on is {part.dtype} {list(part.shape)}; {place.dtype} {list(place.shape)} "
            "is what the first member has it of all."
        )
    file.seek(place.begin + first * math.prod(place.shape[1:]) * place.dtype.itemsize)
    if part.numel():
        file.write(part.detach().cpu().contiguous().view(torch.uint8).flatten().numpy().data)


def _laid(layout: Layout, meta: Mapping[str, Any]) -> tuple[bytes, dict[str, Place]]:
    """The header, and where each tensor lies."""
    ordered = sorted(layout, key=lambda name: (_ORDER.index(_NAMES[layout[name][0]]), name))
    described: dict[str, Any] = {METADATA: metadata_of(meta)}
    ends = [0]
    for name in ordered:
        dtype, shape = layout[name]
        ends.append(ends[-1] + math.prod(shape) * dtype.itemsize)
        described[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": ends[-2:]}
    header = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    begins = (8 + len(header) + end for end in ends)
    return header, {name: Place(*layout[name], begin) for name, begin in zip(ordered, begins, strict=False)}


def _end(place: Place) -> int:
    return place.begin + math.prod(place.shape) * place.dtype.itemsize


def map_tensors(path: Path, expected: str | None = None) -> Tensors:
    """The tensors of a file, mapped: to look at, not to write to.

    Args:
        expected: SHA-256 of the file; not looked at when absent.

    Raises:
        CorruptArtifact: no tensor file of this project, one that is cut short, or other bytes than those expected.
    """
    with path.open("rb") if expected is None else open_verified(path, expected) as file:
        known = places_in(file, path)
        file.seek(0)
        size = int.from_bytes(file.read(8), "little")
        check_metadata(json.loads(file.read(size)).get(METADATA, {}), path)
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    _maps.add(pages)
    return {name: _view(pages, one) for name, one in known.items()}


def _view(pages: mmap.mmap, place: Place) -> Tensor:
    if 0 in place.shape:
        return torch.empty(place.shape, dtype=place.dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        flat = torch.frombuffer(pages, dtype=place.dtype, count=math.prod(place.shape), offset=place.begin)
    return flat.reshape(place.shape)


def let_go() -> None:
    """Drop the pages of all mapped files from this process; they come back when they are looked at."""
    for pages in list(_maps):
        pages.madvise(mmap.MADV_DONTNEED)
