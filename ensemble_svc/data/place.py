"""Where a row stands, in words that its owner can look up."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ensemble_svc.data.dataset import Array, Dataset

Splits = Mapping[str, npt.NDArray[np.int64]]


def place(position: int, row: Array | None = None, splits: Splits | None = None) -> str:
    """``row 17 (id 'abc')``: rows count from 1; in a source with named splits, within the split.

    Args:
        position: of the row in the data set, from 0.
        row: the rows' identities; not repeated when it is the position itself.
    """
    for name, positions in (splits or {}).items():
        within = np.flatnonzero(positions == position)
        if within.size:
            return f"row {within[0] + 1} of '{name}'" + _identity(position, row)
    return f"row {position + 1}" + _identity(position, row)


def place_of(dataset: Dataset, position: int) -> str:
    """The same for a row of a data set."""
    return place(position, dataset.row, dataset.splits)


def _identity(position: int, row: Array | None) -> str:
    if row is None or (row.dtype.kind in "iu" and row[position] == position):
        return ""
    return f" (id {row[position].item()!r})"
