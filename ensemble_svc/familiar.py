"""Rows to be measured that the run itself was made of: what is measured on them is no honest test.

A row is known by 64 bits of its values and targets, as the ensemble reads them, wherever it lies now. Rows of few
different values may be equal without being the same row, so it is said that they are equal.

Shapes: N rows, W words of 32 bits in a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ensemble_svc.data.conform import conform
from ensemble_svc.data.dataset import Array, Dataset, InputSchema
from ensemble_svc.evaluate.places import mixed
from ensemble_svc.foreign import imputes
from ensemble_svc.rereading import own_data
from ensemble_svc.store.atomic import write_atomic
from ensemble_svc.store.run import Run
from ensemble_svc.store.tensors import decode, encode

MOST_BYTES = 1 << 32
"""Of the run's own rows, up to which they are read again."""
BLOCK_ROWS = 4096
DECIDING = "deciding.safetensors"
"""Where a run's folder has the marks of rows of another source that decided."""
Marks = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Own:
    """Marks of the run's own rows, sorted."""

    trained: Marks
    """Of those that members were trained on."""
    chosen: Marks
    """Of those that decided, stopped or calibrated, whether the run's own or given to ``reselect``."""

    def count(self, rows: Dataset) -> tuple[int, int]:
        """How many of the rows are equal to one that trained, and how many others to one that decided."""
        found = marks(rows.x, rows.y)
        trained = _among(found, self.trained)
        return int(trained.sum()), int((_among(found, self.chosen) & ~trained).sum())


def own_rows(run: Run, schema: InputSchema) -> Own | str:
    """The run's own rows, read again from its source; where that is not to be had, the reason in words."""
    num_rows = sum(run.manifest()["rows"].values())
    if num_rows * math.prod(schema.shape) * np.dtype(schema.dtype).itemsize > MOST_BYTES:
        return "the run's own rows are too many to be read again"
    prepared = own_data(run)
    if isinstance(prepared, str):
        return prepared
    own = conform(prepared.dataset, schema, missing=imputes(run.job()))
    each = marks(own.x, own.y)
    split = prepared.split
    chosen = np.concatenate([each[split.validation], _deciding(run)])
    return Own(np.unique(each[split.train]), np.unique(chosen))


def keep_deciding(run: Run, rows: Dataset) -> dict[str, str]:
    """Write down which rows of another source decided, by their marks; returns the file and its SHA-256."""
    found = torch.from_numpy(np.unique(marks(rows.x, rows.y)).view(np.int64))
    return {DECIDING: write_atomic(run.path / DECIDING, encode({"marks": found}))}


def _deciding(run: Run) -> Marks:
    """Marks of the rows of another source that decided; none where the run's own did."""
    if DECIDING not in run.manifest()["files"]:
        return np.zeros(0, dtype=np.uint64)
    found = decode(run.verified(DECIDING), run.path / DECIDING)[0]["marks"]
    return found.numpy().view(np.uint64)


def marks(x: Array, y: Array) -> Marks:
    """64 bits of each row [N]: a sum of its words, each mixed and times an odd number of its column's."""
    found = np.empty(len(x), dtype=np.uint64)
    for start in range(0, len(x), BLOCK_ROWS):
        at = slice(start, start + BLOCK_ROWS)
        words = [_words(x[at]), _words(y[at])]
        odd = mixed(np.arange(sum(part.shape[1] for part in words), dtype=np.uint64)) | np.uint64(1)
        found[at] = np.hstack(words) @ odd
    return mixed(found)


def _words(values: Array) -> Marks:
    """The bytes of each row as words [N, W], mixed so that few bits of difference become many; -0 is 0."""
    rows = np.ascontiguousarray(values).reshape(len(values), -1)
    if rows.dtype.kind == "f":
        rows = rows.astype(np.float32) + np.float32(0)
    elif rows.dtype.itemsize != 1:
        rows = rows.astype(np.uint32)
    if rows.dtype.itemsize == 1:
        rows = np.pad(rows, [(0, 0), (0, -rows.shape[1] % 4)])
    words = rows.view(np.uint32).astype(np.uint64)
    words *= np.uint64(0x9E3779B97F4A7C15)
    words ^= words >> np.uint64(32)
    return words


def _among(found: Marks, known: Marks) -> npt.NDArray[np.bool_]:
    if not len(known):
        return np.zeros(len(found), dtype=bool)
    return known[np.searchsorted(known, found).clip(max=len(known) - 1)] == found
