"""Fitted calibrations as modules of a graph: what they do is the same, without a look at the values.

Shapes: N rows, C classes, J knots of the class that has most.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ensemble_svc.aggregate.calibration.isotonic import Isotonic
from ensemble_svc.aggregate.calibration.temperature import FLOOR, Temperature
from ensemble_svc.aggregate.calibration.vector import VectorScaling


class Tempered(nn.Module):
    """``Temperature`` of members or of their mixture."""

    def __init__(self, fitted: Temperature) -> None:
        super().__init__()
        self.fitted = fitted

    def forward(self, log_probs: Tensor) -> Tensor:
        """[..., C] of the same shape and type."""
        return self.fitted.apply(log_probs)


class Scaled(nn.Module):
    """``VectorScaling``."""

    scale_C: Tensor
    shift_C: Tensor

    def __init__(self, fitted: VectorScaling) -> None:
        super().__init__()
        self.register_buffer("scale_C", torch.tensor(fitted.scale, dtype=torch.float64))
        self.register_buffer("shift_C", torch.tensor(fitted.shift, dtype=torch.float64))

    def forward(self, log_probs_NC: Tensor) -> Tensor:
        """[N, C] of the same type."""
        logits_NC = log_probs_NC.double().clamp(min=FLOOR) * self.scale_C + self.shift_C
        return logits_NC.log_softmax(dim=-1).to(log_probs_NC.dtype)


class Stepwise(nn.Module):
    """``Isotonic``: all classes' knots side by side, so that the graph does not grow with the classes.

    The knot to the right of a probability is found by counting those below it: the standard of graphs has no
    binary search.
    """

    at_CJ: Tensor
    value_CJ: Tensor
    last_C: Tensor

    def __init__(self, fitted: Isotonic) -> None:
        super().__init__()
        self.floor = fitted.floor
        self.num_knots = max(2, *(len(at) for at, _ in fitted.knots))
        each = [self._padded(at, value) for at, value in fitted.knots]
        self.register_buffer("at_CJ", torch.tensor([at for at, _ in each], dtype=torch.float64))
        self.register_buffer("value_CJ", torch.tensor([value for _, value in each], dtype=torch.float64))
        last = [max(1, len(at) - 1) for at, _ in fitted.knots]
        self.register_buffer("last_C", torch.tensor(last, dtype=torch.int64))

    def _padded(self, at: tuple[float, ...], value: tuple[float, ...]) -> tuple[list[float], list[float]]:
        """A lone knot becomes two of one value; what stands behind the last is never reached."""
        if len(at) == 1:
            at, value = (at[0], at[0] + 1.0), (value[0], value[0])
        missing = self.num_knots - len(at)
        return [*at, *[math.inf] * missing], [*value, *[0.0] * missing]

    def forward(self, log_probs_NC: Tensor) -> Tensor:
        """[N, C] of the same type."""
        probs_NC = log_probs_NC.double().exp()
        below_NC = (self.at_CJ < probs_NC.unsqueeze(-1)).long().sum(-1)
        right_NC = below_NC.clamp(min=1).minimum(self.last_C)
        first_C = torch.arange(len(self.at_CJ)) * self.num_knots
        right, left = right_NC + first_C, right_NC - 1 + first_C
        at, value = self.at_CJ.flatten(), self.value_CJ.flatten()
        share_NC = ((probs_NC - at[left]) / (at[right] - at[left])).clamp(0, 1)
        found_NC = (value[left] + share_NC * (value[right] - value[left])).clamp(min=self.floor)
        total_N1 = found_NC.sum(-1, keepdim=True)
        found_NC = torch.where(total_N1 > 0, found_NC, torch.ones_like(found_NC))
        return (found_NC / found_NC.sum(-1, keepdim=True)).log().to(log_probs_NC.dtype)
