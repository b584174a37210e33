"""What a step of a transform is, and the rows it is fitted on.

Shapes: n rows, each of shape [D] or [C, H, W].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ensemble_svc.data.dataset import Array

Float64 = npt.NDArray[np.float64]

VALUES_AT_ONCE = 1 << 17
"""Values that stand in float64 at once: a megabyte, which a core's cache holds."""
SMALLEST_DEVIATION = 1e-30
"""Below it a deviation counts as 0, for its inverse would leave the range of float32."""


class Step(nn.Module, ABC):
    """One step; ``forward`` works row by row.

    ``shape`` is that of a row that comes in, ``out_shape`` of one that goes out.
    """

    def __init__(self, shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.out_shape = shape, out_shape

    @abstractmethod
    def fit(self, rows: Rows64) -> None:
        """Fills the buffers from the rows."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """[n, *shape] to [n, *out_shape]."""


class Rows64:
    """Rows as float64 chunks that have gone through earlier steps; read as often as needed.

    Sums are numpy's, which do not depend on the number of threads.
    """

    def __init__(self, x: Array, steps: Sequence[Step]) -> None:
        self.x = x
        self.steps = steps
        self.shape = steps[-1].out_shape if steps else tuple(x.shape[1:])
        self.has_gaps = x.dtype.kind == "f" and bool(np.isnan(x).any())

    def __iter__(self) -> Iterator[Float64]:
        return self.blocks(VALUES_AT_ONCE // max(math.prod(self.x.shape[1:]), 1))

    def __len__(self) -> int:
        return len(self.x)

    def blocks(self, num_rows: int) -> Iterator[Float64]:
        """The rows in order, so many at once."""
        size = max(num_rows, 1)
        for start in range(0, len(self.x), size):
            chunk = self.x[start : start + size]
            rows = chunk.astype(np.float64)
            if chunk.dtype == np.uint8:
                rows /= 255
            if not self.steps:
                yield rows
                continue
            through = torch.from_numpy(rows)
            for step in self.steps:
                through = step(through)
            yield through.numpy()

    def medians(self) -> Float64:
        """Median of each column of a table over the rows that have it; 0 where none has."""
        columns = np.concatenate(list(self)).T
        there = [column[~np.isnan(column)] for column in columns]
        return np.array([np.median(values) if values.size else 0.0 for values in there])

    def mean(self) -> Float64:
        """Mean of each element over the rows that have it; 0 where none has."""
        total, count = np.zeros(self.shape), np.zeros(self.shape)
        for rows in self:
            total += np.nansum(rows, axis=0) if self.has_gaps else rows.sum(axis=0)
            count += self._count(rows)
        return total / np.maximum(count, 1)

    def deviation(self, mean: Float64) -> Float64:
        """Standard deviation (over n) of each element around ``mean``; exactly 0 where constant."""
        total, count = np.zeros(self.shape), np.zeros(self.shape)
        low, high = np.full(self.shape, np.inf), np.full(self.shape, -np.inf)
        for rows in self:
            low = np.fmin(low, np.fmin.reduce(rows, axis=0))
            high = np.fmax(high, np.fmax.reduce(rows, axis=0))
            square = np.square(rows - mean)
            total += np.nansum(square, axis=0) if self.has_gaps else square.sum(axis=0)
            count += self._count(rows)
        return np.where(low < high, np.sqrt(total / np.maximum(count, 1)), 0)

    def mean_square(self) -> Float64:
        """Mean of each element's square over the rows that have it; 0 where none has."""
        total, count = np.zeros(self.shape), np.zeros(self.shape)
        for rows in self:
            total += np.nansum(np.square(rows), axis=0) if self.has_gaps else np.square(rows).sum(axis=0)
            count += self._count(rows)
        return total / np.maximum(count, 1)

    def _count(self, rows: Float64) -> npt.NDArray[np.int64] | int:
        return np.sum(~np.isnan(rows), axis=0) if self.has_gaps else len(rows)
