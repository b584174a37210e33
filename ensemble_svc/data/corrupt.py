"""Images made worse on purpose, to see how an ensemble does on inputs that have drifted.

Six corruptions at severities 1 to 5, the strengths of CIFAR-10-C (Hendrycks & Dietterich 2019, arXiv:1903.12261).
Severity 0 is the image itself.

Shapes: N images, C channels, H x W pixels, numbers from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble_svc.data.pixels import contrast as steepen

SEVERITIES = (1, 2, 3, 4, 5)
BLOCK = 8
_QUANTA = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
"""JPEG's table of steps for luminance (ITU-T T.81, annex K)."""

Draw = Callable[[torch.Size], Tensor]
"""Standard normal numbers of a shape, for the rows at hand."""
Corruption = Callable[[Tensor, int, Draw], Tensor]


def noise(x_NCHW: Tensor, severity: int, draw: Draw) -> Tensor:
    """Gaussian noise on every pixel."""
    std = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    return (x_NCHW + std * draw(x_NCHW.shape).to(x_NCHW.dtype)).clamp(0, 1)


def blur(x_NCHW: Tensor, severity: int, _draw: Draw) -> Tensor:
    """A Gaussian window; beyond the border stands its reflection."""
    return gaussian_blur(x_NCHW, (0.4, 0.6, 0.7, 0.8, 1.0)[severity - 1])


def contrast(x_NCHW: Tensor, severity: int, _draw: Draw) -> Tensor:
    """All values nearer to the image's mean grey."""
    factor = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    return steepen(x_NCHW, torch.tensor(factor, dtype=x_NCHW.dtype))


def brightness(x_NCHW: Tensor, severity: int, _draw: Draw) -> Tensor:
    """The same amount added to every value."""
    return (x_NCHW + (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]).clamp(0, 1)


def pixelate(x_NCHW: Tensor, severity: int, _draw: Draw) -> Tensor:
    """Shrunk by the mean over areas, then drawn large again from the nearest pixel."""
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    height, width = x_NCHW.shape[2:]
    small = (max(1, int(height * share)), max(1, int(width * share)))
    return F.interpolate(F.adaptive_avg_pool2d(x_NCHW, small), (height, width), mode="nearest")


def jpeg(x_NCHW: Tensor, severity: int, _draw: Draw) -> Tensor:
    """Cosines of blocks of 8 x 8 pixels rounded to JPEG's steps, every channel as JPEG treats luminance."""
    quality = (80, 65, 58, 50, 40)[severity - 1]
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    steps = ((torch.tensor(_QUANTA, dtype=x_NCHW.dtype).view(BLOCK, BLOCK) * scale + 50) / 100).floor()
    height, width = x_NCHW.shape[2:]
    padded = F.pad(x_NCHW, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    blocks = padded.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK) * 255 - 128
    basis = _cosines(x_NCHW.dtype)
    kept = (basis @ blocks @ basis.T / steps.clamp(1, 255)).round() * steps.clamp(1, 255)
    pixels = ((basis.T @ kept @ basis + 128) / 255).clamp(0, 1)
    return pixels.transpose(3, 4).reshape(padded.shape)[:, :, :height, :width]


CORRUPTIONS: Mapping[str, Corruption] = {
    "noise": noise,
    "blur": blur,
    "contrast": contrast,
    "brightness": brightness,
    "pixelate": pixelate,
    "jpeg": jpeg,
}


def corrupt(x: Tensor, name: str, severity: int, *, white: float, draw: Draw) -> Tensor:
    """Images as they come in [N, C, H, W], of their own type and range, made worse.

    Args:
        severity: 1 to 5.
        white: what a white pixel is; 255 in bytes.
    """
    pixels = CORRUPTIONS[name](x.float() / white, severity, draw) * white
    return pixels.round().to(x.dtype) if x.dtype == torch.uint8 else pixels.to(x.dtype)


def gaussian_blur(x_NCHW: Tensor, sigma: float) -> Tensor:
    """A Gaussian window over 4 standard deviations each way, no wider than the image allows."""
    radius = min(max(1, math.ceil(4 * sigma)), x_NCHW.shape[2] - 1, x_NCHW.shape[3] - 1)
    if radius < 1:
        return x_NCHW
    at = torch.arange(-radius, radius + 1, dtype=x_NCHW.dtype)
    window = (-0.5 * (at / sigma).square()).exp()
    window = window / window.sum()
    channels = x_NCHW.shape[1]
    padded = F.pad(x_NCHW, (radius, radius, radius, radius), mode="reflect")
    across = F.conv2d(padded, window.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(across, window.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def _cosines(dtype: torch.dtype) -> Tensor:
    """The orthonormal cosine basis, one frequency a row."""
    at = torch.arange(BLOCK, dtype=torch.float64)
    basis = (math.pi / BLOCK * (at + 0.5) * at[:, None]).cos() * math.sqrt(2 / BLOCK)
    basis[0] /= math.sqrt(2)
    return basis.to(dtype)
