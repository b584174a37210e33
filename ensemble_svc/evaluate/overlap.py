"""Two sets of numbers counted in the same bins: how far the doubt of usual rows and of rows from elsewhere overlaps.

Shapes: N usual rows, M rows from elsewhere, B bins.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError

BINS = 40


def overlap(usual_N: Tensor, foreign_M: Tensor, *, bins: int = BINS) -> dict[str, Any]:
    """Both histograms over what the two sets span together.

    Returns:
        ``edges``: B + 1 numbers, the first and last of them the smallest and largest of all. ``usual`` and ``foreign``:
        rows in each bin, N and M together; the last bin holds its upper edge.

    Raises:
        EnsembleError: no rows of one kind, or numbers that are not finite.
    """
    for values in (usual_N, foreign_M):
        if values.ndim != 1 or len(values) == 0 or not values.isfinite().all():
            raise EnsembleError(
                f"numbers of shape {list(values.shape)} cannot be counted; give [rows], all finite."
            )
    both = torch.cat([usual_N.double(), foreign_M.double()])
    low, high = both.min().item(), both.max().item()
    high = high if high > low else low + 1
    edges = torch.linspace(low, high, bins + 1, dtype=torch.float64)
    edges[-1] = high
    counts = [_count(values.double(), edges, bins) for values in (usual_N, foreign_M)]
    return {"edges": edges.tolist(), "usual": counts[0], "foreign": counts[1]}


def _count(values: Tensor, edges: Tensor, bins: int) -> list[int]:
    cell = (torch.searchsorted(edges, values, right=True) - 1).clamp(0, bins - 1)
    found: list[int] = torch.bincount(cell, minlength=bins).tolist()
    return found
