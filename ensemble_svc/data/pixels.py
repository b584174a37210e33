"""Changes of images' values, each by numbers that broadcast over the images: kornia's definitions.

Shapes: images [..., C, H, W] of numbers from 0 to 1; a factor is [..., 1, 1, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""How much red, green and blue count in an image's grey."""
LEVELS = 256


def as_pixels(x_N: Tensor) -> Tensor:
    """Bytes as numbers from 0 to 1, the form in which a transform takes float images."""
    return x_N.float() / 255 if x_N.dtype == torch.uint8 else x_N


def grey(x: Tensor) -> Tensor:
    """[..., 1, H, W]: the luma of three channels, the mean of any other number of them."""
    if x.shape[-3] != 3:
        return x.mean(dim=-3, keepdim=True)
    red, green, blue = x.split(1, dim=-3)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """``other`` at a factor of 0, the image at 1, and beyond it above; kept from 0 to 1."""
    return (x * factor + other * (1 - factor)).clamp_(0, 1)


def brighten(x: Tensor, factor: Tensor) -> Tensor:
    """All values times the factor, kept from 0 to 1."""
    return (x * factor).clamp_(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Values moved from the image's mean grey by the factor."""
    return blend(x, grey(x).mean(dim=(-2, -1), keepdim=True), factor)


def saturate(x: Tensor, factor: Tensor) -> Tensor:
    """Colours moved from each pixel's grey by the factor; three channels."""
    return blend(x, grey(x), factor)


def turn_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Colours turned around the circle by a number of turns; three channels.

    Through hue, saturation and value: each channel is the value minus the chroma times a
    trapezoid of the hue, counted in sixths of the circle.
    """
    red, green, blue = x.split(1, dim=-3)
    value, low = x.amax(dim=-3, keepdim=True), x.amin(dim=-3, keepdim=True)
    chroma = value - low
    safe = torch.where(chroma == 0, 1, chroma)
    sixths = torch.where(value == red, (green - blue) / safe, 4 + (red - green) / safe)
    sixths = torch.where((value == green) & (value != red), 2 + (blue - red) / safe, sixths) + 6 * turns
    starts = torch.tensor((5.0, 3.0, 1.0), dtype=x.dtype, device=x.device).view(3, 1, 1)
    at = (sixths + starts).remainder(6)
    return value - chroma * torch.minimum(at, 4 - at).clamp(0, 1)


def solarize(x: Tensor, threshold: Tensor) -> Tensor:
    """Values from the threshold up turned into their negative."""
    return torch.where(x < threshold, x, 1 - x)


def levels(x: Tensor) -> Tensor:
    """The bytes that the values stand for, as whole numbers."""
    return (x * (LEVELS - 1) + 1e-3).floor()


def posterize(x: Tensor, step: Tensor) -> Tensor:
    """Values cut to whole multiples of ``step`` bytes; a step of 1 keeps them."""
    cut = (levels(x) / step).floor() * step / (LEVELS - 1)
    return torch.where(step <= 1, x, cut)


def smooth(x: Tensor) -> Tensor:
    """Each pixel's mean with its eight neighbours, itself counted five times; the border stays."""
    if min(x.shape[-2:]) < 3:
        return x
    rows = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    nine = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    out = x.clone()
    out[..., 1:-1, 1:-1] = ((nine + 4 * x[..., 1:-1, 1:-1]) / 13).clamp_(0, 1)
    return out


def stretch(x: Tensor) -> Tensor:
    """Each channel's values spread over 0 to 1; a constant channel stays (autocontrast)."""
    low, high = x.amin(dim=(-2, -1), keepdim=True), x.amax(dim=(-2, -1), keepdim=True)
    span = high - low
    return torch.where(span > 0, (x - low) / torch.where(span > 0, span, 1), x)


def equalize(x: Tensor) -> Tensor:
    """Each channel's values so that every level is met about as often (PIL's ``ImageOps.equalize``)."""
    at = levels(x).long().clamp_(0, LEVELS - 1).flatten(-2).flatten(0, -2)
    counts = torch.zeros(len(at), LEVELS, dtype=torch.long, device=x.device)
    counts.scatter_add_(1, at, torch.ones_like(at))
    last = counts.gather(1, at.amax(dim=1, keepdim=True))
    step = (at.shape[1] - last) // (LEVELS - 1)
    below = counts.cumsum(dim=1) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(0, LEVELS - 1)
    out = (table.gather(1, at).to(x.dtype) / (LEVELS - 1)).view(x.shape)
    return torch.where(step.view(*x.shape[:-2], 1, 1) > 0, out, x)
