"""A member's history, a row for each epoch, as the bytes of a Parquet file and as columns of numbers.

Without pandas, which takes a quarter of a second to load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

Columns = Mapping[str, npt.NDArray[np.float64]]

FIRST_COLUMNS = ("epoch", "train_loss", "learning_rate", "seconds", "val_nll")
"""The others follow by name."""


def encode_history(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows with their columns in one order, also where a commit, which sorts its keys, has held them.

    What a row lacks, and what is not a number, is null in its column: NaN has many bits, of which JSON keeps none.
    """
    names = {name for row in rows for name in row}
    first = [name for name in FIRST_COLUMNS if name in names]
    ordered = [*first, *sorted(names - set(first))]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: _column([row.get(name) for row in rows]) for name in ordered}), sink)
    return bytes(sink.getvalue())


def _column(values: Sequence[float | None]) -> pa.Array:
    found = pa.array(values, from_pandas=True)
    return found.cast(pa.float64()) if pa.types.is_null(found.type) else found


def decode_history(body: bytes) -> Columns:
    """Each column of ``encode_history``'s bytes; NaN for what is null."""
    table = pq.read_table(pa.BufferReader(body))
    return {name: table[name].cast(pa.float64()).to_numpy() for name in table.column_names}
