"""Random changes that move an image's pixels: flips and shifts.

Each moves pixels along rows and columns, so a chain of them is one reading: for every output
position, from where in the input it comes. A change leads these positions back by its own draw, the
last change first; then the pixels move once, whatever their type.

Shapes: K members, B images of each, C channels, H x W pixels; L positions along an axis of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ensemble_svc.spec.augment import Crop, Flip


@dataclass(frozen=True)
class Axis:
    """Where the output positions along one axis of the images are read from."""

    at: Tensor
    """[K, B, L] positions in the input, 0 to L - 1; [1, 1, L] while ``moved`` is False."""
    inside: Tensor | None = None
    """[K, B, L]; where it is False a 0 stands instead of the pixel; None: nowhere."""
    moved: bool = False
    """Whether a change has touched the axis."""

    @property
    def positions(self) -> Tensor:
        """``at``, and L where a 0 stands."""
        if self.inside is None:
            return self.at
        return self.at.where(self.inside, self.at.shape[-1])


class Moves(nn.Module):
    """A chain of moves, done to all members' images [K, B, C, H, W] of any type in one reading."""

    def __init__(self, changes: Sequence[Mirror | Shift]) -> None:
        super().__init__()
        self.changes = nn.ModuleList(changes)

    def forward(self, x_KBCHW: Tensor) -> Tensor:
        rows, cols = (Axis(torch.arange(n, device=x_KBCHW.device).view(1, 1, n)) for n in x_KBCHW.shape[3:])
        for change in reversed(self.changes):
            rows, cols = change(rows, cols, x_KBCHW.shape[1])
        return read(x_KBCHW, rows, cols)


class Mirror(nn.Module):
    """Left and right exchanged with probability p, each member's its own."""

    p: Tensor

    def __init__(self, choices_K: Sequence[Flip], generator: torch.Generator | None) -> None:
        super().__init__()
        self.generator = generator
        self.register_buffer("p", torch.tensor([choice.p for choice in choices_K]), persistent=False)
        self.acts = any(choice.p > 0 for choice in choices_K)

    def forward(self, rows: Axis, cols: Axis, num_images: int) -> tuple[Axis, Axis]:
        """The axes led back by one draw for each of ``num_images`` images of each member."""
        draws_KB = torch.rand(len(self.p), num_images, device=self.p.device, generator=self.generator)
        return rows, mirror(cols, draws_KB < self.p[:, None])


class Shift(nn.Module):
    """Pads, then crops back to the size that came in: a shift of up to ``padding`` pixels each way."""

    padding: Tensor

    def __init__(self, choices_K: Sequence[Crop], generator: torch.Generator | None) -> None:
        super().__init__()
        self.generator = generator
        self.mode = choices_K[0].mode
        padding = [choice.padding for choice in choices_K]
        self.register_buffer("padding", torch.tensor(padding), persistent=False)
        self.acts = any(padding)

    def forward(self, rows: Axis, cols: Axis, num_images: int) -> tuple[Axis, Axis]:
        """The axes led back by one draw for each of ``num_images`` images of each member."""
        size, padding_K1 = (2, len(self.padding), num_images), self.padding[:, None]
        draws_2KB = torch.randint(2**62, size, device=padding_K1.device, generator=self.generator)
        down_KB, right_KB = draws_2KB % (2 * padding_K1 + 1) - padding_K1
        return shift(rows, down_KB, self.mode), shift(cols, right_KB, self.mode)


def mirror(axis: Axis, flipped_KB: Tensor) -> Axis:
    """The axis led back through an exchange of its ends in the images that are flipped."""
    last = axis.at.shape[-1] - 1
    at_KBL = torch.where(flipped_KB[..., None], last - axis.at, axis.at)
    return replace(axis, at=at_KBL, moved=True)


def shift(axis: Axis, by_KB: Tensor, mode: Literal["reflect", "constant"]) -> Axis:
    """The axis led back through a window that stands ``by_KB`` pixels further on than the image.

    Beyond the image stands its reflection, which does not repeat the edge, or 0; for a reflection
    a window stands at most L - 1 pixels off.
    """
    last = axis.at.shape[-1] - 1
    at_KBL = axis.at + by_KB[..., None]
    if mode == "reflect":
        return replace(axis, at=last - (last - at_KBL.abs()).abs(), moved=True)
    inside_KBL = (at_KBL >= 0) & (at_KBL <= last)
    if axis.inside is not None:
        inside_KBL &= axis.inside
    return Axis(at_KBL.clamp(0, last), inside_KBL, moved=True)


def read(x_KBCHW: Tensor, rows: Axis, cols: Axis) -> Tensor:
    """The pixels of ``x_KBCHW`` at the positions of both axes."""
    x_NCHW = x_KBCHW.flatten(0, 1)
    num_images, num_channels, height, width = x_NCHW.shape
    if rows.inside is not None or cols.inside is not None:
        x_NCHW = F.pad(x_NCHW, (0, 1, 0, 1))  # a row and a column of zeros, to be read beyond the image
    if rows.moved:
        lines_MW = x_NCHW.reshape(-1, x_NCHW.shape[-1])
        starts_NC1 = torch.arange(0, len(lines_MW), x_NCHW.shape[2], device=x_NCHW.device)
        starts_NC1 = starts_NC1.view(num_images, num_channels, 1)
        at_NCH = starts_NC1 + rows.positions.view(num_images, 1, height)
        x_NCHW = lines_MW.index_select(0, at_NCH.flatten()).view(*at_NCH.shape, -1)
    if cols.moved:
        at_N11W = cols.positions.view(num_images, 1, 1, width)
        x_NCHW = x_NCHW.gather(3, at_N11W.expand(-1, num_channels, height, -1))
    return x_NCHW.unflatten(0, x_KBCHW.shape[:2])
