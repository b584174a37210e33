"""Files read a piece at a time, so that memory is bounded by the piece however many rows there are.

A csv file's columns are typed by its first mebibyte, whole numbers taken as numbers with a fraction; a later field that
does not fit is an error that names it.

Shapes: N rows of a piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.lib import format as npy

from ensemble_svc.data.archive import DAMAGE, check_header, read_array
from ensemble_svc.data.columns import check_names, csv_fault, csv_options
from ensemble_svc.data.dataset import Array
from ensemble_svc.data.paths import reading
from ensemble_svc.errors import DataError

BUFFER_BYTES = 1 << 20
"""Bytes of a column (parquet) or of the file (csv) read at once."""


def csv_batches(
    path: Path, *, separator: str, rows: int, text: Sequence[str] = (), only: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """Tables of at most ``rows`` rows, in order; as ``columns.read_csv`` of the whole.

    Args:
        only: the columns to read; all when empty.

    Raises:
        DataError: as ``columns.read_csv``, when the piece with the fault is reached.
    """
    parse, convert = csv_options(path, separator=separator, text=text)
    read = pyarrow.csv.ReadOptions(use_threads=False, block_size=BUFFER_BYTES)
    try:
        with reading(path), path.open("rb") as stream:
            first = pyarrow.csv.open_csv(
                stream, read_options=read, parse_options=parse, convert_options=convert
            )
            check_names(first.schema.names, path)
            types = {field.name: _widened(field.type) for field in first.schema}
        convert.column_types = {**types, **{name: pa.string() for name in text}}
        convert.include_columns = list(only)
        with reading(path), path.open("rb") as stream:
            reader = pyarrow.csv.open_csv(
                stream, read_options=read, parse_options=parse, convert_options=convert
            )
            yield from _cut((pa.Table.from_batches([batch]) for batch in reader), rows)
    except pa.ArrowInvalid as fault:
        raise csv_fault(path, fault) from fault


def parquet_batches(path: Path, *, rows: int, only: Sequence[str] = ()) -> Iterator[pa.Table]:
    """Tables of at most ``rows`` rows, in order; as ``columns.read_parquet`` of the whole.

    Args:
        only: the columns to read; all when empty. Names that the file lacks are passed over.

    Raises:
        DataError: as ``columns.read_parquet``, when the piece with the fault is reached.
    """
    with (
        reading(path, pa.ArrowException, UnicodeDecodeError),
        pyarrow.parquet.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False) as file,
    ):
        names = parquet_columns(path)
        wanted = [name for name in names if not only or name in only]
        for batch in file.iter_batches(batch_size=rows, columns=wanted, use_threads=False):
            if batch.num_rows:
                yield pa.Table.from_batches([batch])


def parquet_columns(path: Path) -> list[str]:
    """Names of a parquet file's columns, without the index that pandas adds.

    Raises:
        DataError: damaged; a column without a name of its own.
    """
    with reading(path, pa.ArrowException, UnicodeDecodeError), pyarrow.parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
    kept = [name for name in names if not name.startswith("__index_level_")]
    check_names(kept, path)
    return kept


def array_batches(path: Path, names: Sequence[str], *, rows: int) -> Iterator[tuple[Array, ...]]:
    """Arrays of an ``.npz`` file side by side, at most ``rows`` rows at a time, unpacked as they are read.

    An array in Fortran's order is read whole.

    Raises:
        DataError: as ``archive.read_array``.
    """
    shapes = []
    with reading(path, *DAMAGE), ZipFile(path) as archive:
        infos = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        streams = []
        for name in names:
            stream = archive.open(infos[name])
            check_header(path, name, infos[name], stream)
            stream.seek(0)
            version = npy.read_magic(stream)
            header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shapes.append(header(stream))
            streams.append(stream)
        if not all(shape for shape, _, _ in shapes):
            raise DataError(f"{path}: {' and '.join(names)} must be arrays with a row for each example.")
        if len({shape[0] for shape, _, _ in shapes}) > 1:
            told = ", ".join(f"'{n}' has shape {s}" for n, (s, _, _) in zip(names, shapes, strict=True))
            raise DataError(f"{path}: {told}; they must have as many rows.")
        if any(fortran and len(shape) > 1 for shape, fortran, _ in shapes):
            whole = [read_array(path, name) for name in names]
            for start in range(0, len(whole[0]), rows):
                yield tuple(np.ascontiguousarray(array[start : start + rows]) for array in whole)
            return
        length = shapes[0][0][0]
        for start in range(0, length, rows):
            count = min(rows, length - start)
            yield tuple(
                _take(stream, count, shape, dtype)
                for stream, (shape, _, dtype) in zip(streams, shapes, strict=True)
            )


def array_shape(path: Path, name: str) -> tuple[int, ...]:
    """Shape of an array of an ``.npz`` file, from its header.

    Raises:
        DataError: as ``archive.read_array``.
    """
    with reading(path, *DAMAGE), ZipFile(path) as archive:
        member = next(m for m in archive.infolist() if m.filename.removesuffix(".npy") == name)
        with archive.open(member) as stream:
            return check_header(path, name, member, stream)


def _take(stream: object, count: int, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    size = count * dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
    body = stream.read(size)  # type: ignore[attr-defined]
    if len(body) < size:
        raise EOFError("it ends early")
    return np.frombuffer(bytearray(body), dtype=dtype).reshape(count, *shape[1:])


def _cut(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    for table in tables:
        for start in range(0, table.num_rows, rows):
            yield table.slice(start, rows)


def _widened(kind: pa.DataType) -> pa.DataType:
    """A type that later rows fit as well: what starts with whole numbers may go on with fractions."""
    if pa.types.is_integer(kind):
        return pa.float64()
    return pa.string() if pa.types.is_null(kind) else kind
