"""A number for each row that looks random and depends on its place alone, whoever reads it and when.

Shapes: N rows.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Use = Literal["group", "sample"]
_STEP, _FIRST, _SECOND = (
    np.uint64(0x9E3779B97F4A7C15),
    np.uint64(0xBF58476D1CE4E5B9),
    np.uint64(0x94D049BB133111EB),
)
_USES: dict[Use, int] = {"group": 1, "sample": 2}


def row_keys(shard: int, start: int, count: int, *, use: Use = "group", seed: int = 0) -> Tensor:
    """Keys [N] from 0 to 2^63 - 1 of rows that follow each other in a file.

    Args:
        shard: number of the file.
        start: place of the first row in it.
        use: keys of different uses have nothing to do with each other.
    """
    head = np.array([seed, _USES[use], shard], dtype=np.uint64)
    with np.errstate(over="ignore"):
        mark = np.uint64(0)
        for part in head:
            mark = mixed(np.array([mark + part]))[0]
        keys = mixed(mark + np.arange(start, start + count, dtype=np.uint64))
    return torch.from_numpy((keys >> np.uint64(1)).astype(np.int64))


def mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """64 bits that look random, of each (Steele, Lea & Flood 2014, SplitMix64)."""
    values = values + _STEP
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))
