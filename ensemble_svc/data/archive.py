"""Arrays out of ``.npz`` files without trusting them: no pickle, no size believed before it is checked."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import IO
from zipfile import BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

from ensemble_svc.data.dataset import Array
from ensemble_svc.data.paths import check_unpacked, reading
from ensemble_svc.errors import DataError

DAMAGE = (BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError)
"""What reading a damaged ``.npz`` file raises."""


def array_names(path: Path) -> tuple[str, ...]:
    """Names of the arrays in an ``.npz`` file, in its order.

    Raises:
        DataError: not a zip file, or one that says it unpacks to more than it may.
    """
    with reading(path, *DAMAGE), ZipFile(path) as archive:
        members = archive.infolist()
    check_unpacked(path, sum(member.file_size for member in members))
    return tuple(member.filename.removesuffix(".npy") for member in members)


def read_array(path: Path, name: str) -> Array:
    """One array of an ``.npz`` file.

    Raises:
        DataError: a damaged file, an array of Python objects (they would run code), or a header
            that declares another size than the file holds.
    """
    with reading(path, *DAMAGE), ZipFile(path) as archive:
        member = next(m for m in archive.infolist() if m.filename.removesuffix(".npy") == name)
        with archive.open(member) as stream:
            check_header(path, name, member, stream)
        with archive.open(member) as stream:
            array: Array = npy.read_array(stream, allow_pickle=False)
    return array


def check_header(path: Path, name: str, member: ZipInfo, stream: IO[bytes]) -> tuple[int, ...]:
    """The shape that an array's header declares, once it is seen to be true.

    Raises:
        DataError: an array of Python objects, or of another size than the file holds.
    """
    version = npy.read_magic(stream)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise DataError(f"{path}: array '{name}' has npy version {version}; 1.0 and 2.0 are read.")
    shape, _, dtype = read(stream)
    if dtype.hasobject or dtype.names is not None:
        raise DataError(
            f"{path}: array '{name}' holds Python objects or records, which are not read. "
            "Save plain numbers, or text as np.array([...], dtype=str)."
        )
    declared, held = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
    if declared != held or min(shape, default=0) < 0:
        raise DataError(
            f"{path}: array '{name}' declares shape {tuple(shape)} of {np.dtype(dtype).name} "
            f"({declared:,} bytes) but holds {held:,} bytes; the file is damaged."
        )
    return tuple(shape)
