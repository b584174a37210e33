"""Random loss of what an image shows: a covered rectangle, noise.

Shapes: K members, B images of each, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ensemble_svc.data.change import Change
from ensemble_svc.spec.augment import Erase, Noise


class NoiseChange(Change):
    """Gaussian noise on every pixel by the member's deviation."""

    std: Tensor

    def __init__(self, choices_K: Sequence[Noise], generator: torch.Generator | None, white: float) -> None:
        super().__init__([choice.std > 0 for choice in choices_K], generator, white)
        self.values("std", [choice.std for choice in choices_K])

    def changed(self, x_KBCHW: Tensor) -> Tensor:
        noise = torch.randn(
            x_KBCHW.shape, dtype=x_KBCHW.dtype, device=x_KBCHW.device, generator=self.generator
        )
        return noise.mul_(self.std.view(-1, 1, 1, 1, 1).to(noise.dtype)).add_(x_KBCHW)


class Eraser(Change):
    """A rectangle of random size and place, covered in the images that are drawn."""

    p: Tensor
    area: Tensor
    ratio: Tensor

    def __init__(self, choices_K: Sequence[Erase], generator: torch.Generator | None, white: float) -> None:
        super().__init__([choice.p > 0 for choice in choices_K], generator, white)
        self.fill = choices_K[0].fill
        self.values("p", [choice.p for choice in choices_K])
        self.values("area", [choice.area for choice in choices_K])
        self.values("ratio", [choice.ratio for choice in choices_K])

    def changed(self, x_KBCHW: Tensor) -> Tensor:
        draws_5KB = self.uniform(5, *x_KBCHW.shape[:2], like=x_KBCHW)
        covered = draws_5KB[0] < self.p[:, None]
        area_KB = _between(self.area, draws_5KB[1])
        ratio_KB = _between(self.ratio.log(), draws_5KB[2]).exp()
        height, width = x_KBCHW.shape[-2:]
        tall_KB = _side(area_KB * ratio_KB * height * width, height)
        wide_KB = _side(area_KB / ratio_KB * height * width, width)
        rows_KBH = _span(draws_5KB[3], tall_KB, height) & covered[..., None]
        cols_KBW = _span(draws_5KB[4], wide_KB, width)
        return erase(x_KBCHW, rows_KBH, cols_KBW, self._paint(x_KBCHW))

    def _paint(self, x_KBCHW: Tensor) -> Tensor:
        if self.fill == "random":
            return self.uniform(*x_KBCHW.shape, like=x_KBCHW).to(x_KBCHW.dtype)
        return x_KBCHW.new_full((), self.fill)


def erase(x_KBCHW: Tensor, rows_KBH: Tensor, cols_KBW: Tensor, paint: Tensor) -> Tensor:
    """The images with ``paint`` where a covered row meets a covered column."""
    covered = rows_KBH[:, :, None, :, None] & cols_KBW[:, :, None, None, :]
    return torch.where(covered, paint, x_KBCHW)


def _between(limits_K2: Tensor, draws_KB: Tensor) -> Tensor:
    low_K1, high_K1 = limits_K2[:, :1], limits_K2[:, 1:]
    return low_K1 + (high_K1 - low_K1) * draws_KB


def _side(square_KB: Tensor, most: int) -> Tensor:
    return square_KB.sqrt().round().clamp(1, most)


def _span(draws_KB: Tensor, length_KB: Tensor, size: int) -> Tensor:
    """[K, B, size] which positions lie in a stretch of this length, all places equally likely."""
    start_KB1 = (draws_KB * (size - length_KB + 1)).floor()[..., None]
    at = torch.arange(size, device=draws_KB.device)
    return (at >= start_KB1) & (at < start_KB1 + length_KB[..., None])
