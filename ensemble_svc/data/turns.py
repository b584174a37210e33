"""Random turns of images, and the bilinear reading of images through linear maps.

Shapes: K members, B images of each, N = K B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble_svc.data.change import Change
from ensemble_svc.spec.augment import Rotate

Outside = Literal["reflect", "constant"]


class Turn(Change):
    """A turn of each image around its centre by an angle from -degrees to degrees."""

    degrees: Tensor

    def __init__(self, choices_K: Sequence[Rotate], generator: torch.Generator | None, white: float) -> None:
        super().__init__([choice.degrees > 0 for choice in choices_K], generator, white)
        self.mode = choices_K[0].mode
        self.values("degrees", [choice.degrees for choice in choices_K])

    def changed(self, x_KBCHW: Tensor) -> Tensor:
        draws_KB = 2 * self.uniform(*x_KBCHW.shape[:2], like=x_KBCHW) - 1
        maps_N23 = turned((draws_KB * self.degrees[:, None]).flatten())
        return sample(x_KBCHW.flatten(0, 1), maps_N23, self.mode).view(x_KBCHW.shape)


def turned(degrees_N: Tensor) -> Tensor:
    """The maps [N, 2, 3] that turn images counter-clockwise."""
    angle_N = degrees_N.deg2rad()
    cos, sin, none = angle_N.cos(), angle_N.sin(), torch.zeros_like(angle_N)
    return torch.stack([cos, -sin, none, sin, cos, none], dim=-1).view(-1, 2, 3)


def sample(x_NCHW: Tensor, maps_N23: Tensor, mode: Outside) -> Tensor:
    """The images read bilinearly, each through its own map.

    Args:
        maps_N23: from where an output pixel (x to the right, y down, counted from the centre) is read:
            a 2 x 2 matrix and a shift, in pixels.
        mode: what stands beyond the image: its reflection, which does not repeat the edge, or 0.
    """
    x_W, y_H = (torch.arange(n, device=x_NCHW.device) - (n - 1) / 2 for n in x_NCHW.shape[:1:-1])
    half = [max(n - 1, 1) / 2 for n in x_NCHW.shape[:1:-1]]
    axes = [
        (row_N3[:, :1, None] * x_W + row_N3[:, 1:2, None] * y_H[:, None] + row_N3[:, 2:, None]) / half[axis]
        for axis, row_N3 in enumerate(maps_N23.unbind(1))
    ]
    grid_NHW2 = torch.stack(axes, dim=-1).to(x_NCHW.dtype)
    outside = "reflection" if mode == "reflect" else "zeros"
    return F.grid_sample(x_NCHW, grid_NHW2, padding_mode=outside, align_corners=True)
