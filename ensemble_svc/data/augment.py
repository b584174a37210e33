"""Random changes of training images; the only file that knows kornia.

Shapes: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from typing import assert_never

import torch
from kornia.augmentation import RandomCrop, RandomHorizontalFlip
from torch import Tensor, nn

from ensemble_svc.spec.data import Augment, Crop, Flip


def build_augment(choices: tuple[Augment, ...]) -> nn.Module:
    """Maps [B, C, H, W] float to the same shape; every image draws for itself.

    The draws come from torch's global generator, which the caller seeds. The module changes images
    in every mode, so it is left out when members are measured.
    """
    return nn.Sequential(*(_build(choice) for choice in choices))


def _build(choice: Augment) -> nn.Module:
    match choice:
        case Flip():
            return RandomHorizontalFlip(p=choice.p)
        case Crop():
            return Shift(choice)
        case _:
            assert_never(choice)


class Shift(nn.Module):
    """Pads, then crops back to the size that came in, at a place drawn for each image."""

    def __init__(self, choice: Crop) -> None:
        super().__init__()
        self.choice = choice

    @torch.no_grad()
    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The same shape."""
        height, width = x_BCHW.shape[2:]
        crop = RandomCrop((height, width), padding=self.choice.padding, padding_mode=self.choice.mode)
        shifted: Tensor = crop(x_BCHW)
        return shifted
