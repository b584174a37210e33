"""Paired bootstrap over rows: how much a number would move on another sample of the same size.

Rows are drawn with replacement (Efron 1979) and every prediction is measured on the same draw, so what
all of them find hard cancels from their differences. A resample is a vector of counts; the means of all
statistics over all resamples are a matrix product, done a few resamples at a time. Intervals are the
percentiles, moved to the estimate where the number is no mean over rows (the calibration error: rows
drawn twice look like miscalibration); they speak of other rows from the same source, not of other members.

Draws come from a generator of their own, seeded by the argument, on the CPU: the same numbers on any
device, and whatever the chunks.

Shapes: R resamples, M predictions, N examples, S statistics of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

CHUNK_ELEMENTS = 2_000_000
"""Counts held at once: about 64 MB while they are drawn, or one resample where N is larger."""


def resampled_means(
    statistics: Sequence[Tensor], *, num_resamples: int, seed: int, chunk_elements: int = CHUNK_ELEMENTS
) -> Tensor:
    """Means of each prediction's row statistics over each resample of the rows, [R, M, S] float64.

    Args:
        statistics: M tables [N, S] of finite float64 on the CPU. Each has a product of its own, so equal
            tables have equal means to the bit.
        seed: draws are a function of it and of N alone.
        chunk_elements: bounds the memory; no result depends on it but for round-off.
    """
    num_rows = len(statistics[0])
    chunks = _draw_counts(num_rows, num_resamples, seed, max(1, chunk_elements // num_rows))
    sums = [torch.stack([counts_RN @ table_NS for table_NS in statistics], dim=1) for counts_RN in chunks]
    return torch.cat(sums) / num_rows


def percentile_interval(values_R: Tensor, confidence: float) -> tuple[float, float]:
    """The central interval that holds at least the share ``confidence`` of the values; NaN if any is NaN."""
    tail = (1 - confidence) / 2
    low = torch.quantile(values_R, tail, interpolation="lower")
    high = torch.quantile(values_R, 1 - tail, interpolation="higher")
    return low.item(), high.item()


def _draw_counts(num_rows: int, num_resamples: int, seed: int, chunk: int) -> Iterator[Tensor]:
    """How often each row is in each resample, [chunk, N] float64 at a time."""
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        drawn = torch.randint(num_rows, (size, num_rows), generator=generator)
        drawn += torch.arange(size)[:, None] * num_rows
        yield torch.bincount(drawn.flatten(), minlength=size * num_rows).view(size, num_rows).double()
