"""The inputs of single rows as a page can show them: pictures, or the values that are farthest from the usual.

Shapes: N rows, D columns, n rows that are shown, images [C, H, W].
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import numpy as np

from ensemble_svc.data.dataset import Array, Dataset
from ensemble_svc.data.picture import png

FEATURES = 6
"""Columns of a table that are shown at most."""
SIDE = 64
"""Pixels of a picture's longer side at most."""
REFERENCE = 20_000
"""Training rows at most that say what is usual, evenly spread."""


def inputs(dataset: Dataset, rows: Sequence[int], train: Array) -> dict[str, Any]:
    """What some rows hold.

    Args:
        rows: positions in the data set.
        train: positions of the training rows, which say what is usual in a table.

    Returns:
        Of images ``pictures``: a PNG in base64 for each row. Of a table ``features``: names, ``values`` [n][F]: a
        number or a category's name, None where it is missing, ``unusual`` [n][F]: deviations from the training rows'
        mean (of a category, of its being there), and ``of``: how many columns there are.
    """
    if dataset.kind == "image":
        pictures = [png(dataset.x[n], dataset.black, dataset.white, most=SIDE) for n in rows]
        return {"pictures": [b64encode(picture).decode() for picture in pictures]}
    usual = train[np.unique(np.linspace(0, len(train) - 1, min(REFERENCE, len(train))).astype(int))]
    unusual_nD = _unusual(dataset, np.asarray(rows), np.asarray(usual))
    order = np.argsort(-np.abs(np.nan_to_num(unusual_nD)).mean(0), kind="stable")[:FEATURES]
    names = dataset.features or tuple(str(column) for column in range(dataset.x.shape[1]))
    return {
        "features": [names[column] for column in order],
        "of": len(names),
        "values": [[_value(dataset, n, column) for column in order] for n in rows],
        "unusual": [[_known(z) for z in line] for line in unusual_nD[:, order].tolist()],
    }


def _unusual(dataset: Dataset, rows: Array, usual: Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    found = np.zeros((len(rows), dataset.x.shape[1]))
    numeric = dataset.x.shape[1] - len(dataset.categories)
    for column in range(dataset.x.shape[1]):
        known, own = (dataset.x[some, column].astype(np.float64) for some in (usual, rows))
        if column >= numeric:
            share = (known[None, :] == own[:, None]).mean(1).clip(1 / len(known), 1)
            found[:, column] = np.sqrt((1 - share) / share)
            continue
        known = known[np.isfinite(known)]
        spread = known.std() if len(known) else 0.0
        found[:, column] = (own - known.mean()) / spread if spread > 0 else 0.0
    return found


def _value(dataset: Dataset, row: int, column: int) -> float | str | None:
    number, numeric = float(dataset.x[row, column]), dataset.x.shape[1] - len(dataset.categories)
    if not np.isfinite(number):
        return None
    if column < numeric:
        return float(f"{number:.5g}")
    names = list(dataset.categories.values())[column - numeric]
    return names[int(number)] if 0 <= number < len(names) else None


def _known(z: float) -> float | None:
    return round(z, 3) if np.isfinite(z) else None
