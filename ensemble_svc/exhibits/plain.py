"""Arrays as lists that JSON can hold."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

DIGITS = 7


def plain(values: Tensor) -> Any:
    """The numbers as nested lists, to seven digits; None for those that are not finite."""
    return _short(values.tolist())


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [_short(one) for one in value]
    if isinstance(value, int):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
