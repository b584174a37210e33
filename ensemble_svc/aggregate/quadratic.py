"""Least quadratics over numbers that may not be negative: the small problem inside fitting weights.

Shapes: K unknowns.
"""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-12
"""Added to the diagonal, relative to its mean, so that copies of a member have one solution."""


def least_nonnegative(matrix_KK: Tensor, linear_K: Tensor) -> Tensor:
    """The w >= 0 with the least w'Aw / 2 - b'w, by active sets (Lawson & Hanson 1974, chapter 23).

    Finite and deterministic: unknowns enter one at a time, the steepest first, and leave when they would
    turn negative.

    Args:
        matrix_KK: A, symmetric positive semi-definite, float64.
        linear_K: b, float64.

    Returns:
        [K] float64.
    """
    size = len(linear_K)
    matrix_KK = matrix_KK + torch.eye(size, dtype=torch.float64) * (RIDGE * matrix_KK.diagonal().mean())
    w_K = torch.zeros(size, dtype=torch.float64)
    free_K = torch.zeros(size, dtype=torch.bool)
    small = 1e-13 * linear_K.abs().max().item()
    for _ in range(10 * size):
        slope_K = (linear_K - matrix_KK @ w_K).masked_fill(free_K, -torch.inf)
        if slope_K.max() <= small:
            break
        free_K[slope_K.argmax()] = True
        w_K = _settle(matrix_KK, linear_K, w_K, free_K)
    return w_K


def _settle(matrix_KK: Tensor, linear_K: Tensor, w_K: Tensor, free_K: Tensor) -> Tensor:
    """Minimum over the free unknowns, freeing fewer (in place) until none is negative."""
    while True:
        index = free_K.nonzero()[:, 0]
        goal_K = torch.zeros_like(w_K)
        goal_K[index] = torch.linalg.solve(matrix_KK[index][:, index], linear_K[index])
        negative_K = free_K & (goal_K <= 0)
        if not negative_K.any():
            return goal_K
        share_K = (w_K / (w_K - goal_K)).masked_fill(~negative_K, torch.inf)
        w_K = (w_K + share_K.min().clamp(max=1) * (goal_K - w_K)).clamp(min=0)
        free_K &= ~(negative_K & (share_K <= share_K.min()))
        w_K = w_K.masked_fill(~free_K, 0)
        if not free_K.any():
            return w_K
