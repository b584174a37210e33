"""The ``idx`` source: the MNIST files (format: yann.lecun.com/exdb/mnist, 1998), plain or gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from ensemble_svc.data.arrays import Arrays, assemble, concatenate
from ensemble_svc.data.dataset import Array, Dataset
from ensemble_svc.data.paths import check_unpacked, find_file, find_folder, reading
from ensemble_svc.errors import DataError
from ensemble_svc.spec.data import Idx
from ensemble_svc.spec.job import Task

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_FILES = {"train": "train", "t10k": "test"}


def load_idx(source: Idx, *, task: Task, directory: Path) -> Dataset:
    """Training rows, then test rows.

    Raises:
        DataError: one of the four files missing or damaged.
    """
    folder = find_folder(source.path, directory)
    files = [(f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte") for stem in _FILES]
    pairs = [(_read_one(folder, images), _read_one(folder, labels)) for images, labels in files]
    splits, start = {}, 0
    for split, (x, y), (images, _) in zip(_FILES.values(), pairs, files, strict=True):
        if len(x) != len(y):
            raise DataError(f"{folder / images}: {len(x)} images, but {len(y)} labels.")
        splits[split] = np.arange(start, start + len(x))
        start += len(x)
    raw = Arrays(
        x=concatenate([x for x, _ in pairs], names=[images for images, _ in files], origin=str(folder)),
        y=np.concatenate([y for _, y in pairs]),
        origin=str(folder),
        splits=splits,
    )
    return assemble(raw, task=task)


def _read_one(folder: Path, name: str) -> Array:
    plain, packed = folder / name, folder / f"{name}.gz"
    if packed.exists() and not plain.exists():
        return read_idx(find_file(packed.name, folder))
    return read_idx(find_file(name, folder))


def read_idx(path: Path) -> Array:
    """One array, in this machine's byte order.

    Raises:
        DataError: another format, or a size that is not the declared one.
    """
    with reading(path, EOFError, zlib.error), path.open("rb") as plain:
        stream = gzip.GzipFile(fileobj=plain) if path.suffix == ".gz" else plain
        head = stream.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _TYPES or not 1 <= head[3] <= 4:
            raise DataError(
                f"{path}: is not an IDX file; its first bytes are {head!r}, not 0, 0, type, axes."
            )
        sizes = stream.read(4 * head[3])
        if len(sizes) < 4 * head[3]:
            raise DataError(f"{path}: ends within its header; the file is damaged.")
        shape = np.frombuffer(sizes, dtype=">u4").tolist()
        dtype = np.dtype(_TYPES[head[2]])
        declared = math.prod(shape) * dtype.itemsize
        check_unpacked(path, declared)
        body = stream.read(declared + 1)
    if len(body) != declared:
        raise DataError(
            f"{path}: declares shape {tuple(shape)}, {declared:,} bytes, but holds "
            f"{'more' if len(body) > declared else f'{len(body):,}'}; the file is damaged."
        )
    return np.frombuffer(body, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="))
