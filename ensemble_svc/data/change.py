"""What a change of images that works on their values is.

Shapes: K members, B images of each, C channels, H x W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ensemble_svc.data.pixels import as_pixels


class Change(nn.Module, ABC):
    """Images [K, B, C, H, W] in, numbers of the same shape out; each image draws for itself.

    A member without any strength keeps its images to the bit (bytes as numbers from 0 to 1).

    Args:
        acts_K: whether each member has any strength.
        white: what a white pixel is in images of numbers.
    """

    acts_K: Tensor

    def __init__(self, acts_K: Sequence[bool], generator: torch.Generator | None, white: float) -> None:
        super().__init__()
        self.generator, self.white = generator, white
        self.acts, self.all_act = any(acts_K), all(acts_K)
        self.register_buffer("acts_K", torch.tensor(acts_K), persistent=False)

    @abstractmethod
    def changed(self, x_KBCHW: Tensor) -> Tensor:
        """The images, white at 1, changed by draws of their own."""

    def forward(self, x_KBCHW: Tensor) -> Tensor:
        white = 1.0 if x_KBCHW.dtype == torch.uint8 else self.white
        x_KBCHW = as_pixels(x_KBCHW)
        out_KBCHW = self.changed(x_KBCHW if white == 1 else x_KBCHW / white)
        if white != 1:
            out_KBCHW = out_KBCHW * white
        if self.all_act:
            return out_KBCHW
        return torch.where(self.acts_K.view(-1, 1, 1, 1, 1), out_KBCHW, x_KBCHW)

    def values(self, name: str, values_K: Sequence[float] | Sequence[Sequence[float]]) -> None:
        """Keeps the members' values of an option as a buffer [K, …]."""
        self.register_buffer(name, torch.tensor(values_K), persistent=False)

    def uniform(self, *size: int, like: Tensor) -> Tensor:
        """Numbers from 0 to 1, as many of them and on the images' device."""
        return torch.rand(size, device=like.device, generator=self.generator)
