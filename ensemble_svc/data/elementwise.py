"""The steps that treat each element of a row apart.

Shapes: n rows, each of shape [D] or [C, H, W].
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.data.fitting import SMALLEST_DEVIATION, Float64, Rows64, Step
from ensemble_svc.spec.preprocess import Impute


def inverse(deviation: Float64) -> Tensor:
    """1 over it, and 0 where it is 0."""
    varies = deviation > SMALLEST_DEVIATION
    return torch.from_numpy(np.where(varies, 1 / np.where(varies, deviation, 1), 0))


class StandardizeStep(Step):
    """Each element minus its mean, over its deviation; a constant one becomes 0 everywhere."""

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, shape)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.zeros(shape))

    def fit(self, rows: Rows64) -> None:
        mean = rows.mean()
        self.mean.copy_(torch.from_numpy(mean))
        self.scale.copy_(inverse(rows.deviation(mean)))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.scale


class ScaleStep(Step):
    """Each element over the root of its mean square; one that was always 0 becomes 0 everywhere."""

    scale: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, shape)
        self.register_buffer("scale", torch.zeros(shape))

    def fit(self, rows: Rows64) -> None:
        self.scale.copy_(inverse(np.sqrt(rows.mean_square())))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class CenterStep(Step):
    """Each element minus its mean."""

    mean: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, shape)
        self.register_buffer("mean", torch.zeros(shape))

    def fit(self, rows: Rows64) -> None:
        self.mean.copy_(torch.from_numpy(rows.mean()))

    def forward(self, x: Tensor) -> Tensor:
        return x - self.mean


class ChannelCenterStep(Step):
    """Images minus the mean of each channel."""

    mean: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, shape)
        self.register_buffer("mean", torch.zeros(shape[0], 1, 1))

    def fit(self, rows: Rows64) -> None:
        self.mean.copy_(torch.from_numpy(rows.mean().mean(axis=(1, 2), keepdims=True)))

    def forward(self, x: Tensor) -> Tensor:
        return x - self.mean


class ImputeStep(Step):
    """Missing numbers become the column's median or mean; 0 in a column without any number."""

    fill: Tensor

    def __init__(self, shape: tuple[int, ...], choice: Impute) -> None:
        super().__init__(shape, shape)
        self.choice = choice
        self.register_buffer("fill", torch.zeros(shape))

    def fit(self, rows: Rows64) -> None:
        fill = rows.mean() if self.choice.strategy == "mean" else rows.medians()
        self.fill.copy_(torch.from_numpy(fill))

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(torch.isnan(x), self.fill.to(x.dtype), x)
