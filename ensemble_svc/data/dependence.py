"""Columns that the other columns all but determine: the error surface is then a long valley.

Shapes: n rows, D columns.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MOST_COLUMNS = 500
"""Wider tables are not looked at, for the work grows with the cube of the width."""
MOST_ROWS = 5000
"""Rows that are looked at, evenly spaced."""
ROWS_PER_COLUMN = 5
"""With fewer rows a column may follow from the others by chance."""
DETERMINED = 0.999
"""Share of a column's variance that the others give away, from which it is named."""
RIDGE = 1e-9


def dependent_columns(x: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which columns are nearly a linear function of the others.

    A column's share is 1 - 1 / (inverse of the correlation matrix's diagonal), adjusted for the
    number of columns (Theil 1961). Constant columns and copies of earlier ones are left aside.

    Args:
        x: [n, D] the table's numbers, gaps as NaN.
    """
    found = np.zeros(x.shape[1], dtype=bool)
    sampled = x[:: -(-len(x) // MOST_ROWS) or 1].astype(np.float64)
    told = np.flatnonzero(_distinct(sampled))
    rows = sampled[~np.isnan(sampled[:, told]).any(axis=1)][:, told]
    num_rows, num_columns = rows.shape
    if not 2 <= num_columns <= MOST_COLUMNS or num_rows < ROWS_PER_COLUMN * num_columns:
        return found
    centred = rows - rows.mean(axis=0)
    deviation = centred.std(axis=0)
    varies = deviation > 0
    unit = centred / np.where(varies, deviation, 1)
    correlation = unit.T @ unit / num_rows + np.diag(np.where(varies, RIDGE, 1))
    unexplained = 1 / np.diag(np.linalg.inv(correlation))
    adjusted = unexplained * (num_rows - 1) / (num_rows - num_columns)
    found[told] = varies & (adjusted < 1 - DETERMINED)
    return found


def _distinct(x: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Columns that vary, have no gap in most rows, and are no copies."""
    gaps = np.isnan(x).mean(axis=0) > 0.5
    low, high = np.fmin.reduce(x, axis=0), np.fmax.reduce(x, axis=0)
    first: dict[bytes, int] = {}
    new = [first.setdefault(column.tobytes(), j) == j for j, column in enumerate(np.ascontiguousarray(x.T))]
    return ~gaps & (low < high) & np.array(new, dtype=bool)
