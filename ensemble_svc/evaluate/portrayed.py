"""The reliability diagram and the numbers of each class, of rows that come a piece at a time.

Law: sums of pieces, in any order, are the sums of the whole; counts to the bit.

Shapes: N rows of a piece, C classes, B bins.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ensemble_svc.evaluate.binning import calibration


class Portrayed:
    """Sums over the rows so far, by bin of confidence and by true class."""

    def __init__(self, num_classes: int, *, bins: int) -> None:
        self._bins_B3 = torch.zeros(bins, 3, dtype=torch.float64)
        """Rows, confidence, right ones."""
        self._classes_C4 = torch.zeros(num_classes, 4, dtype=torch.float64)
        """Rows, right ones, finite minus log probabilities, infinite ones."""

    def add(self, log_probs_NC: Tensor, target_N: Tensor) -> None:
        """Take in the next rows."""
        bins = len(self._bins_B3)
        cell_N, confidence_N, right_N = calibration(log_probs_NC, target_N, bins)
        ones_N = torch.ones_like(right_N)
        cell_N = cell_N.clamp(max=bins - 1)
        self._bins_B3.index_add_(0, cell_N, torch.stack([ones_N, confidence_N, right_N], dim=1))
        nll_N = -log_probs_NC.gather(1, target_N[:, None].long())[:, 0].double()
        infinite_N = nll_N.isposinf()
        each_N4 = [ones_N, right_N, nll_N.masked_fill(infinite_N, 0), infinite_N.double()]
        self._classes_C4.index_add_(0, target_N.long(), torch.stack(each_N4, dim=1))

    def join(self, other: Portrayed) -> None:
        """Take in another's sums."""
        self._bins_B3 += other._bins_B3
        self._classes_C4 += other._classes_C4

    def reliability(self) -> dict[str, list[Any]]:
        """As ``reliability.reliability``."""
        bins = len(self._bins_B3)
        count, confidence, right = self._bins_B3.T.tolist()
        return {
            "edges": [b / bins for b in range(bins + 1)],
            "confidence": [total / n if n else None for total, n in zip(confidence, count, strict=True)],
            "accuracy": [total / n if n else None for total, n in zip(right, count, strict=True)],
            "count": [int(n) for n in count],
        }

    def classes(self) -> list[dict[str, Any]]:
        """As ``portrait.each_class``."""
        return [
            {
                "class": number,
                "rows": int(rows),
                "accuracy": right / rows,
                "nll": math.inf if infinite else nll / rows,
            }
            for number, (rows, right, nll, infinite) in enumerate(self._classes_C4.tolist())
            if rows
        ]
