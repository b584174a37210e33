"""Rows without targets, read for an ensemble that exists: the input of ``predict``.

Shapes: N rows, D columns, images [N, C, H, W].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ensemble_svc.data.archive import array_names, read_array
from ensemble_svc.data.arrays import as_inputs
from ensemble_svc.data.batches import (
    array_batches,
    array_shape,
    csv_batches,
    parquet_batches,
    parquet_columns,
)
from ensemble_svc.data.checks import check_features
from ensemble_svc.data.columns import as_identities, as_numbers, as_words, require
from ensemble_svc.data.conform import check_rows, conform
from ensemble_svc.data.dataset import Array, Dataset, InputSchema
from ensemble_svc.data.image import SUFFIXES, Mode, image_files, read_images
from ensemble_svc.data.paths import expand, find_file, find_folder
from ensemble_svc.data.table import codes
from ensemble_svc.errors import DataError, did_you_mean

__all__ = ["conform", "read_inputs", "stream_inputs"]

PIECE_ROWS = 8192
"""Most rows of a piece."""
PIECE_BYTES = 1 << 26
"""What a piece's rows may take, as they are read."""
_MODES: dict[int, Mode] = {1: "L", 3: "RGB", 4: "RGBA"}


def read_inputs(
    path: str | Path,
    schema: InputSchema,
    *,
    id_column: str | None = None,
    separator: str = ",",
    resize: bool = False,
    missing: bool | None = None,
) -> tuple[Array, Array]:
    """Raw rows as the schema has them, and each row's id.

    Reads csv, tsv, parquet and npz files, one image, or a folder of images (and of folders). Columns
    are matched by name, in any order; further ones are ignored. A value of a category that the
    ensemble does not know becomes -1.

    Args:
        id_column: column (or array of an npz) with the ids; else rows are numbered from 0, and
            images are named by their path in the folder.
        resize: images of another size are resized, as ``data.source.size`` did for training.
        missing: whether missing numbers are allowed, because the ensemble imputes them; None
            says so when its training rows had missing numbers.

    Raises:
        DataError: a missing column, a row that does not fit, a file that cannot be read.
    """
    pieces = [
        (piece.x, piece.row)
        for piece in stream_inputs(
            path, schema, id_column=id_column, separator=separator, resize=resize, missing=missing
        )
    ]
    if not pieces:
        raise DataError(f"{path}: there are no rows.")
    return np.concatenate([x for x, _ in pieces]), np.concatenate([row for _, row in pieces])


def stream_inputs(
    path: str | Path,
    schema: InputSchema,
    *,
    id_column: str | None = None,
    separator: str = ",",
    resize: bool = False,
    missing: bool | None = None,
    whole: bool | None = None,
) -> Iterator[Dataset]:
    """The same a piece at a time, in order, with targets that mean nothing; memory is bounded by the piece.

    Of a file without rows there is no piece.

    Args:
        whole: whether the ids are to be whole numbers, as ``whole_ids_of`` says of several files; None looks at those
            of this one.

    Raises:
        DataError: as ``read_inputs``, when the piece with the fault is reached.
    """
    found, rows = expand(str(path), Path()), piece_rows(schema)
    kind = found.suffix.lower()
    if found.is_dir() or kind in SUFFIXES:
        pieces = _from_images(found, schema, resize=resize, rows=rows)
    elif kind in (".csv", ".tsv", ".txt", ".parquet", ".pq"):
        file = find_file(str(path), Path())
        pieces = _from_table(
            file, schema, id_column=id_column, separator=_separator(file, separator), rows=rows, whole=whole
        )
    elif kind == ".npz":
        pieces = _from_npz(find_file(str(path), Path()), schema, id_column=id_column, rows=rows, whole=whole)
    else:
        raise DataError(
            f"{found}: inputs are .csv, .tsv, .parquet or .npz files, or a folder of images; got '{kind}'."
        )
    imputed = bool(schema.indicators) if missing is None else missing
    for x, row in pieces:
        piece = Dataset(x, np.zeros(len(x)), row, schema.kind, schema.features, dict(schema.categories))
        check_features(piece, np.arange(len(x)), imputed=imputed)
        yield piece


def piece_rows(schema: InputSchema) -> int:
    """Rows of a piece: few enough that they take little memory, and no more than are predicted at once."""
    size = math.prod(schema.shape) * np.dtype(schema.dtype).itemsize
    return max(1, min(PIECE_ROWS, PIECE_BYTES // max(1, size)))


def table_batches(
    path: Path, *, separator: str, rows: int, text: Sequence[str] = (), only: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """A csv or parquet file's rows in pieces; of parquet ``only`` these columns are read, where they are there."""
    if path.suffix.lower() in (".parquet", ".pq"):
        return parquet_batches(path, rows=rows, only=only)
    return csv_batches(path, separator=separator, rows=rows, text=text)


def whole_ids_of(files: Sequence[Path], id_column: str, *, separator: str, schema: InputSchema) -> bool:
    """Whether the ids of all files, as far as they can be read, are whole numbers that lose nothing as such.

    Args:
        separator: as ``stream_inputs``.
        schema: says in what pieces the rows will be read: what is read of a file before its fault is looked at.
    """
    rows = piece_rows(schema)

    def each(file: Path) -> bool:
        if file.suffix.lower() in SUFFIXES:
            return True  # images are named by their paths
        try:
            if file.suffix.lower() == ".npz":
                return id_column not in array_names(file) or read_array(file, id_column).dtype.kind in "iu"
            return _whole_ids(file, id_column, separator=_separator(file, separator), rows=rows)
        except DataError:
            return True  # those before the fault were

    return all(each(file) for file in files)


def _whole_ids(path: Path, id_column: str, *, separator: str, rows: int) -> bool:
    """Whether all ids of a table are whole numbers that lose nothing as such; reads that column alone.

    Raises:
        DataError: no such column; as ``columns.as_identities``.
    """
    if path.suffix.lower() in (".parquet", ".pq"):
        tables = parquet_batches(path, rows=rows, only=(id_column,))
    else:
        tables = csv_batches(path, separator=separator, rows=rows, text=(id_column,), only=(id_column,))
    try:
        return all(as_identities(t[id_column], id_column, path).dtype.kind == "i" for t in tables)
    except KeyError:
        raise DataError(f"{path}: there is no column '{id_column}'.") from None


def _separator(path: Path, separator: str) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else separator


Pieces = Iterator[tuple[Array, Array]]
"""Rows and their ids."""


def _from_table(
    path: Path, schema: InputSchema, *, id_column: str | None, separator: str, rows: int, whole: bool | None
) -> Pieces:
    if schema.kind != "table":
        raise DataError(f"{path}: is a table, but the ensemble reads images of shape {schema.shape}.")
    ids = (id_column,) if id_column else ()
    known = dict(schema.categories)
    start = 0
    pieces = table_batches(
        path, separator=separator, rows=rows, text=(*known, *ids), only=(*schema.features, *ids)
    )
    for table in pieces:
        if not start:
            _check_columns(path, table, schema, ids)
            if whole is None and id_column is not None:
                whole = _whole_ids(path, id_column, separator=separator, rows=1 << 16)
        with counted_from(start):
            x = np.column_stack([_column(table, name, known, path) for name in schema.features])
            row = (
                as_identities(table[id_column], id_column, path, whole=whole)
                if id_column
                else np.arange(start, start + table.num_rows)
            )
        start += table.num_rows
        yield x, row


@contextmanager
def counted_from(start: int) -> Iterator[None]:
    """Say where a piece begins in what is told of its rows."""
    try:
        yield
    except DataError as fault:
        if not start:
            raise
        raise DataError(f"{fault} (Rows are counted from row {start + 1:,} of the file.)") from fault


def _check_columns(path: Path, table: pa.Table, schema: InputSchema, ids: Sequence[str]) -> None:
    names = table.column_names
    if path.suffix.lower() in (".parquet", ".pq"):
        names = parquet_columns(path)
    whole = pa.table({name: [] for name in names})
    require(whole, schema.features, key="the ensemble's input", path=path)
    require(whole, ids, key="the id", path=path)


def _column(
    table: pa.Table, name: str, known: Mapping[str, tuple[str, ...]], path: Path
) -> npt.NDArray[np.float32]:
    if name in known:
        return codes(as_words(table[name], name, path), known[name])[0]
    return as_numbers(table[name], name, path)


def _from_npz(
    path: Path, schema: InputSchema, *, id_column: str | None, rows: int, whole: bool | None
) -> Pieces:
    names = array_names(path)
    name = next((n for n in names if n.lower() == "x"), names[0] if len(names) == 1 else None)
    if name is None:
        raise DataError(f"{path}: holds the arrays {', '.join(names)}; call the inputs 'x'.")
    if id_column is not None and id_column not in names:
        hint = did_you_mean(id_column, names)
        raise DataError(f"{path}: there is no array '{id_column}' with ids.{hint}")
    row = np.arange(0) if id_column is None else read_array(path, id_column)
    length = (array_shape(path, name) or (0,))[0]
    if id_column is not None and (row.shape != (length,) or row.dtype.kind not in "iuUS"):
        raise DataError(
            f"{path}: '{id_column}' has shape {row.shape} of {row.dtype}; ids are {length} integers or words."
        )
    row = row.astype(np.int64) if row.dtype.kind in "iu" and whole is not False else row.astype(str)
    start = 0
    for (piece,) in array_batches(path, [name], rows=rows):
        x = _images(piece, schema, origin=f"{path}: {name}") if schema.kind == "image" else piece
        x = as_inputs(x, layout="NCHW", origin=f"{path}: {name}")
        check_rows(x, schema, origin=f"{path}: {name}")
        at = slice(start, start + len(x))
        start += len(x)
        yield x, np.arange(at.start, at.stop) if id_column is None else row[at]


def _images(x: Array, schema: InputSchema, *, origin: str) -> Array:
    """The axes put in the schema's order, which is known here."""
    channels, height, width = schema.shape
    if x.shape[1:] == (height, width) and channels == 1:
        return x[:, None]
    if x.shape[1:] == (height, width, channels) and x.shape[1:] != schema.shape:
        return x.transpose(0, 3, 1, 2)
    if x.shape[1:] != schema.shape:
        raise DataError(
            f"{origin} has images of shape {x.shape[1:]}; the ensemble reads {channels} x {height} x {width} "
            "(channels x height x width; channels may come last)."
        )
    return x


def _from_images(path: Path, schema: InputSchema, *, resize: bool, rows: int) -> Pieces:
    if schema.kind != "image":
        raise DataError(f"{path}: is images, but the ensemble reads a table of {schema.shape[0]} columns.")
    single = path.suffix.lower() in SUFFIXES and not path.is_dir()
    folder = path.parent if single else find_folder(str(path), Path())
    files = [find_file(str(path), Path())] if single else image_files(folder)
    if not files:
        raise DataError(f"{path}: there are no images ({', '.join(sorted(SUFFIXES))}).")
    channels, height, width = schema.shape
    if channels not in _MODES:
        raise DataError(
            f"{path}: image files cannot hold the {channels} channels that the ensemble reads; use npz."
        )
    names = np.array([file.relative_to(folder).as_posix() for file in files], dtype=str)
    for start in range(0, len(files), rows):
        some = files[start : start + rows]
        x = read_images(some, mode=_MODES[channels], size=(height, width) if resize else None)
        check_rows(x, schema, origin=str(some[0]))
        yield x, names[start : start + rows]
