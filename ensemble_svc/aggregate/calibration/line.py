"""The least value of a function of one positive number, by steps that do not depend on luck."""

from __future__ import annotations

import math
from collections.abc import Callable

GOLDEN = (math.sqrt(5) - 1) / 2


def least_on(
    function: Callable[[float], float], low: float, high: float, *, points: int = 41, tolerance: float = 1e-6
) -> float:
    """The argument from ``low`` to ``high`` with the least value, among those looked at and 1.

    A grid of equal ratios finds the valley, golden sections (Kiefer 1953) its floor. For a function with
    one valley that is its minimum, to ``tolerance`` relative; with several, that of the deepest point of
    the grid. As 1 is looked at too, the value is never above that of 1.
    """
    step = math.log(high / low) / (points - 1)
    grid = [math.log(low) + i * step for i in range(points)]
    values = [_finite(function(math.exp(x))) for x in grid]
    best = values.index(min(values))
    left, right = grid[max(best - 1, 0)], grid[min(best + 1, points - 1)]
    seen = {math.exp(x): value for x, value in zip(grid, values, strict=True)} | {1.0: _finite(function(1.0))}
    inner = [right - GOLDEN * (right - left), left + GOLDEN * (right - left)]
    at = [_finite(function(math.exp(x))) for x in inner]
    while right - left > tolerance:
        seen |= {math.exp(x): value for x, value in zip(inner, at, strict=True)}
        if at[0] <= at[1]:
            right = inner[1]
            inner = [right - GOLDEN * (right - left), inner[0]]
            at = [_finite(function(math.exp(inner[0]))), at[0]]
        else:
            left = inner[0]
            inner = [inner[1], left + GOLDEN * (right - left)]
            at = [at[1], _finite(function(math.exp(inner[1])))]
    return min(seen, key=lambda x: (seen[x], abs(math.log(x))))


def root_of_increasing(slope: Callable[[float], float], low: float, high: float) -> float:
    """Where an increasing function crosses 0, by bisection in the logarithm; an end if it does not."""
    if slope(low) >= 0:
        return low
    if slope(high) <= 0:
        return high
    while high / low > 1 + 1e-12:
        middle = math.sqrt(low * high)
        if not low < middle < high:
            break
        if slope(middle) < 0:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)


def _finite(value: float) -> float:
    return value if not math.isnan(value) else math.inf
