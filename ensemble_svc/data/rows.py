"""Lists of row positions that others wrote, checked before anything is taken by them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_svc.data.dataset import Array
from ensemble_svc.errors import DataError


def row_positions(rows: Array, num_rows: int, *, where: str) -> npt.NDArray[np.int64]:
    """The positions, sorted.

    Args:
        rows: [n] integers from 0 to ``num_rows`` - 1, each at most once.

    Raises:
        DataError: naming the first that is not whole, out of range or listed twice.
    """
    if rows.size and (rows.ndim != 1 or rows.dtype.kind not in "iuf"):
        raise DataError(f"{where} has shape {rows.shape} of {rows.dtype}; it is a list of row numbers.")
    listed = rows.reshape(-1).astype(np.float64)
    wrong = ~((listed >= 0) & (listed < num_rows) & (listed == np.floor(listed)))
    if wrong.any():
        i = int(np.argmax(wrong))
        raise DataError(f"{where}, entry {i + 1}: {listed[i]:g}; rows are numbered 0 to {num_rows - 1}.")
    positions, counts = np.unique(listed.astype(np.int64), return_counts=True)
    if (counts > 1).any():
        twice = positions[counts > 1][0]
        raise DataError(f"{where}: row {twice} is listed {counts.max()} times; each row at most once.")
    return positions
