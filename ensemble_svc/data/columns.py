"""Columns of a table file: read with pyarrow, told apart into numbers and text, made into arrays.

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from ensemble_svc.data.dataset import Array
from ensemble_svc.data.labels import to_float32
from ensemble_svc.data.paths import check_unpacked, reading
from ensemble_svc.errors import DataError, did_you_mean

_PACKED = (".gz", ".bz2", ".zst", ".xz", ".zip", ".lz4")


def read_csv(path: Path, *, separator: str, text: Sequence[str] = ()) -> pa.Table:
    """A file with a header line; empty fields, NA and NaN are missing.

    Args:
        text: columns not to be read as numbers, whatever they look like ('007' stays '007').

    Raises:
        DataError: a line with another number of fields, no rows, columns without a name of their own.
    """
    parse, convert = csv_options(path, separator=separator, text=text)
    # One thread, for only then does pyarrow say which line is wrong.
    read = pyarrow.csv.ReadOptions(use_threads=False)
    try:
        with reading(path), path.open("rb") as stream:
            table = pyarrow.csv.read_csv(
                stream, read_options=read, parse_options=parse, convert_options=convert
            )
    except pa.ArrowInvalid as fault:
        raise csv_fault(path, fault) from fault
    return _named(table, path)


def csv_options(
    path: Path, *, separator: str, text: Sequence[str]
) -> tuple[pyarrow.csv.ParseOptions, pyarrow.csv.ConvertOptions]:
    """How every csv file is read.

    Raises:
        DataError: a packed file.
    """
    if path.suffix in _PACKED:
        raise DataError(f"{path}: packed text is not read; unpack it first.")
    return pyarrow.csv.ParseOptions(delimiter=separator, newlines_in_values=True), pyarrow.csv.ConvertOptions(
        column_types={name: pa.string() for name in text}, strings_can_be_null=True
    )


def csv_fault(path: Path, fault: pa.ArrowInvalid) -> DataError:
    """What pyarrow says of a csv file, as one sentence."""
    reason = str(fault).replace("Row #", "line ").replace("CSV parse error: ", "")
    return DataError(f"{path}: {' '.join(reason.split())}.")


def read_parquet(path: Path) -> pa.Table:
    """A parquet file; the index columns that pandas adds are left out.

    Raises:
        DataError: damaged, unpacking to more than it may, or without rows.
    """
    with reading(path, pa.ArrowException, UnicodeDecodeError), pyarrow.parquet.ParquetFile(path) as file:
        metadata = file.metadata
        check_unpacked(path, max(metadata.num_rows * metadata.num_columns * 8, _unpacked(metadata)))
        table = file.read()
        table = table.drop([n for n in table.column_names if n.startswith("__index_level_")])
    return _named(table, path)


def _unpacked(metadata: pyarrow.parquet.FileMetaData) -> int:
    return sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))


def _named(table: pa.Table, path: Path) -> pa.Table:
    with reading(path, UnicodeDecodeError):
        names = table.column_names
    check_names(names, path, num_rows=table.num_rows)
    return table


def check_names(names: Sequence[str], path: Path, *, num_rows: int | None = None) -> None:
    """Sees that there are rows, and that each column has a name of its own.

    Args:
        num_rows: how many there are, where that is known.

    Raises:
        DataError: naming the column.
    """
    if num_rows == 0:
        raise DataError(f"{path}: there are no rows; its columns are {', '.join(names) or 'none'}.")
    for i, name in enumerate(names):
        if not name.strip():
            raise DataError(
                f"{path}: column {i + 1} has no name (a saved row index?). "
                "Name it in the header, or remove it."
            )
        if name in names[:i]:
            raise DataError(f"{path}: two columns are called '{name}'; each needs a name of its own.")


def require(table: pa.Table, names: Sequence[str], *, key: str, path: Path) -> None:
    """Sees that the columns are there.

    Args:
        key: of the job file that names them.

    Raises:
        DataError: a column that is not there, with the nearest one that is.
    """
    for name in names:
        if name not in table.column_names:
            known = table.column_names
            listed = ", ".join(known[:30]) + (", …" if len(known) > 30 else "")
            raise DataError(
                f"{path}: {key} names column '{name}', which is not there."
                f"{did_you_mean(name, known)} Columns: {listed}."
            )


def is_text(column: pa.ChunkedArray) -> bool:
    """Whether the values are words, to be read as categories."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def as_numbers(column: pa.ChunkedArray, name: str, path: Path) -> npt.NDArray[np.float32]:
    """[N] float32; missing values are NaN.

    Raises:
        DataError: dates, lists or text, naming the first value that is no number.
    """
    kind = column.type
    if is_text(column):
        return _parsed(column, name, path)
    if not (pa.types.is_null(kind) or pa.types.is_boolean(kind) or _is_numeric(kind)):
        raise DataError(
            f"{path}: column '{name}' holds {kind}, not numbers or text. "
            f"Turn it into numbers, or leave it out with data.source.drop: ['{name}']."
        )
    values = column.cast(pa.float64(), safe=False).to_numpy()
    return to_float32(values, where=f"column '{name}' of {path}")


def _parsed(column: pa.ChunkedArray, name: str, path: Path) -> npt.NDArray[np.float32]:
    values = np.empty(len(column), dtype=np.float32)
    for i, text in enumerate(column.to_pylist()):
        try:
            values[i] = np.nan if text is None or not text.strip() else float(text.replace("_", "?"))
        except ValueError:
            raise DataError(
                f"{path}: row {i + 1}, column '{name}': {text!r} is no number. "
                "Mend it; an empty field is a missing number."
            ) from None
    return values


def as_words(column: pa.ChunkedArray, name: str, path: Path) -> list[str | None]:
    """[N] words; whole numbers without a decimal point, missing values as None.

    Raises:
        DataError: bytes that are no text, lists and the like.
    """
    kind = column.type
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
        whole = pc.and_(pc.is_finite(column), pc.equal(pc.floor(column), column))
        if pc.all(whole, min_count=0).as_py():
            column = column.cast(pa.int64(), safe=False)
    try:
        words: list[str | None] = column.cast(pa.string()).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as fault:
        raise DataError(
            f"{path}: column '{name}' holds {kind} that is no text (UTF-8). "
            f"Save it as text, or leave it out with data.source.drop: ['{name}']."
        ) from fault
    return words


def as_identities(column: pa.ChunkedArray, name: str, path: Path, *, whole: bool | None = None) -> Array:
    """[N] ids: int64 where that loses nothing ('007' stays text), else text.

    Args:
        whole: whether all ids, those of other pieces of the file too, are such numbers; None looks at these.

    Raises:
        DataError: a missing id.
    """
    words = as_words(column, name, path)
    if None in words:
        raise DataError(f"{path}: row {words.index(None) + 1}, id column '{name}': the id is missing.")
    text = np.array(words, dtype=str)
    if whole is False:
        return text
    try:
        numbers = text.astype(np.int64)
    except (ValueError, OverflowError):
        return text
    return numbers if (numbers.astype(str) == text).all() else text


def _is_numeric(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
