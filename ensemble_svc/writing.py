"""Predictions as a file: parquet and csv grow piece by piece, npz is held until its end.

Shapes: N rows of a piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from ensemble_svc.data.dataset import Array
from ensemble_svc.errors import DataError
from ensemble_svc.store.growing import growing

FORMATS = (".parquet", ".csv", ".npz")
Columns = dict[str, Array]
Write = Callable[[Columns], None]


def check_format(output: Path) -> None:
    """Refuse a file name that says no format.

    Raises:
        DataError: naming those that there are.
    """
    if output.suffix not in FORMATS:
        raise DataError(f"{output}: cannot write '{output.suffix}'; use one of {', '.join(FORMATS)}")


@contextmanager
def written(output: Path) -> Iterator[Write]:
    """Takes pieces of a table, all with the same columns; the file is there when the block ends.

    Raises:
        DataError: an output format that is not offered.
        StoreError: a place that cannot be written.
    """
    check_format(output)
    with growing(output) as file:
        kind = {".parquet": _parquet, ".csv": _csv, ".npz": _npz}[output.suffix]
        with kind(file) as write:
            yield write


@contextmanager
def _parquet(file: IO[bytes]) -> Iterator[Write]:
    writer: pa_parquet.ParquetWriter | None = None

    def write(columns: Columns) -> None:
        nonlocal writer
        table = _table(columns)
        writer = writer or pa_parquet.ParquetWriter(file, table.schema)
        writer.write_table(table)

    yield write
    if writer is not None:
        writer.close()


@contextmanager
def _csv(file: IO[bytes]) -> Iterator[Write]:
    writer: pa_csv.CSVWriter | None = None

    def write(columns: Columns) -> None:
        nonlocal writer
        table = _harmless(_table(columns))
        writer = writer or pa_csv.CSVWriter(file, table.schema)
        writer.write_table(table)

    yield write
    if writer is not None:
        writer.close()


@contextmanager
def _npz(file: IO[bytes]) -> Iterator[Write]:
    pieces: list[Columns] = []
    yield pieces.append
    if pieces:
        arrays: dict[str, Any] = {
            name: _plain(np.concatenate([piece[name] for piece in pieces])) for name in pieces[0]
        }
        np.savez(file, **arrays)


def _table(columns: Columns) -> pa.Table:
    return pa.table({name: _column(values) for name, values in columns.items()})


def _column(values: Array) -> pa.Array:
    return pa.array(values) if values.dtype.kind in "fiub" else pa.array(values.tolist())


def _plain(values: Array) -> Array:
    return values.astype(str) if values.dtype == object else values


def _harmless(table: pa.Table) -> pa.Table:
    """Text that a spreadsheet would run as a formula gets a quote in front."""

    def quoted(text: str) -> str:
        return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text

    for i, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            cells = [quoted(text) for text in table.column(i).to_pylist()]
            table = table.set_column(i, field.name, pa.array(cells, pa.string()))
    return table.rename_columns([quoted(name) for name in table.column_names])
