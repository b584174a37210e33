"""The risk-coverage curve of an ensemble beside the best there could be and its members', at a few hundred points.

Shapes: N rows, P points.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ensemble_svc.evaluate.selective import risk_coverage
from ensemble_svc.exhibits.plain import plain

POINTS = 160
FEWEST = 5
"""Rows of the first point at least: the mean of fewer says nothing."""
MEMBERS = 32
"""Members whose curves are averaged at most."""

Ranked = tuple[Tensor, Tensor]
"""Loss [N] and doubt [N]."""


def risk(ensemble: Ranked, members: Iterable[Ranked]) -> dict[str, Any]:
    """Mean loss of the surest rows against their share.

    Args:
        members: each one's own losses and doubts; may be none.

    Returns:
        ``coverage`` [P] shares, ``ensemble`` and ``best`` [P] mean losses: of the rows that it doubts least, and were
        it to doubt rows by their loss. ``aurc`` and ``excess``, the area above the best curve's, are over all N rows.
        With members ``mean_member`` [P], ``mean_member_aurc``, ``mean_member_excess``.
    """
    loss_N, doubt_N = ensemble
    curve_N, best_N = risk_coverage(loss_N, doubt_N), risk_coverage(loss_N, loss_N)
    at_P = _points(len(loss_N))
    found = {
        "coverage": plain((at_P + 1) / len(loss_N)),
        "ensemble": plain(curve_N[at_P]),
        "best": plain(best_N[at_P]),
        "aurc": curve_N.mean().item(),
        "excess": (curve_N - best_N).mean().item(),
    }
    total_N, excess, number = torch.zeros_like(curve_N), 0.0, 0
    for loss, doubt in members:
        own_N = risk_coverage(loss, doubt)
        excess += (own_N - risk_coverage(loss, loss)).mean().item()
        total_N, number = total_N.add_(own_N), number + 1
    if number:
        mean_N = total_N / number
        found |= {
            "mean_member": plain(mean_N[at_P]),
            "mean_member_aurc": mean_N.mean().item(),
            "mean_member_excess": excess / number,
        }
    return found


def some_of(number: int) -> list[int]:
    """Positions of at most ``MEMBERS`` of so many members, evenly spread."""
    return sorted({round(i * (number - 1) / max(1, MEMBERS - 1)) for i in range(MEMBERS)})


def _points(num_rows: int) -> Tensor:
    first = min(max(FEWEST, num_rows // 50), num_rows)
    return torch.linspace(first, num_rows, POINTS).round().long().unique() - 1
