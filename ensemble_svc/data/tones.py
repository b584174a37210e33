"""Random changes of images' brightness and colours.

Shapes: K members, B images of each, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ensemble_svc.data.change import Change
from ensemble_svc.data.pixels import brighten, contrast, saturate, turn_hue
from ensemble_svc.spec.augment import Contrast, Jitter


class ContrastChange(Change):
    """A contrast factor for each image, from 1 - strength to 1 + strength."""

    strength: Tensor

    def __init__(
        self, choices_K: Sequence[Contrast], generator: torch.Generator | None, white: float
    ) -> None:
        super().__init__([choice.strength > 0 for choice in choices_K], generator, white)
        self.values("strength", [choice.strength for choice in choices_K])

    def changed(self, x_KBCHW: Tensor) -> Tensor:
        draws_KB = 2 * self.uniform(*x_KBCHW.shape[:2], like=x_KBCHW) - 1
        return contrast(x_KBCHW, _per_image(1 + draws_KB * self.strength[:, None]).to(x_KBCHW.dtype))


class JitterChange(Change):
    """Brightness, contrast, saturation and hue in this order, each by a draw of its own.

    As kornia's ``ColorJitter`` with a fixed order. What no member has is left out; the draws are the same.
    """

    strength: Tensor

    def __init__(self, choices_K: Sequence[Jitter], generator: torch.Generator | None, white: float) -> None:
        strengths = [(c.brightness, c.contrast, c.saturation, c.hue) for c in choices_K]
        super().__init__([any(own) for own in strengths], generator, white)
        self.values("strength", strengths)
        self.wanted = [any(part) for part in zip(*strengths, strict=True)]

    def changed(self, x_KBCHW: Tensor) -> Tensor:
        draws_4KB = 2 * self.uniform(4, *x_KBCHW.shape[:2], like=x_KBCHW) - 1
        by_4KB = (draws_4KB * self.strength.T[:, :, None]).to(x_KBCHW.dtype)
        bright, steep, rich, turns = (_per_image(by_KB) for by_KB in by_4KB)
        colours = x_KBCHW.shape[-3] == 3
        if self.wanted[0]:
            x_KBCHW = brighten(x_KBCHW, 1 + bright)
        if self.wanted[1]:
            x_KBCHW = contrast(x_KBCHW, 1 + steep)
        if self.wanted[2] and colours:
            x_KBCHW = saturate(x_KBCHW, 1 + rich)
        return turn_hue(x_KBCHW, turns) if self.wanted[3] and colours else x_KBCHW


def _per_image(values_KB: Tensor) -> Tensor:
    return values_KB[..., None, None, None]
