"""Random changes of training images: every image draws for itself, by its own member's strength.

Shapes: K members, B images of each, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn

from ensemble_svc.data.blots import Eraser, NoiseChange
from ensemble_svc.data.change import Change
from ensemble_svc.data.moves import Mirror, Moves, Shift
from ensemble_svc.data.policy import Policy
from ensemble_svc.data.tones import ContrastChange, JitterChange
from ensemble_svc.data.turns import Turn
from ensemble_svc.spec.augment import (
    Augment,
    Contrast,
    Crop,
    Erase,
    Flip,
    Jitter,
    Noise,
    RandAugment,
    Rotate,
)

Built: TypeAlias = Mirror | Shift | Change


def build_augment(
    choices_K: Sequence[tuple[Augment, ...]],
    generator: torch.Generator | None = None,
    *,
    white: float = 1.0,
) -> nn.Module:
    """Maps the members' images [K, B, C, H, W] to the same shape.

    Flips and shifts keep the images' type. What changes values makes bytes numbers from 0 to 1.

    The members' changes are the same in number, name and mode, and differ in strength alone. The module
    changes images in every mode, so it is left out when members are measured. A change of which no
    member has any draws nothing.

    Args:
        generator: where the draws come from, torch's global one when absent; the caller seeds it.
        white: what a white pixel is in images of numbers; black is 0.
    """
    built = [_build(same_K, generator, white) for same_K in zip(*choices_K, strict=True)]
    return Augmentation([change for change in built if change.acts])


class Augmentation(nn.Module):
    """A chain of changes in order; those that only move pixels are done in one reading where they meet."""

    def __init__(self, changes: Sequence[Built]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(_joined(changes))

    @torch.no_grad()
    def forward(self, x_KBCHW: Tensor) -> Tensor:
        for step in self.steps:
            x_KBCHW = step(x_KBCHW)
        return x_KBCHW


def _joined(changes: Sequence[Built]) -> Iterator[nn.Module]:
    for moves, some in groupby(changes, key=lambda change: isinstance(change, Mirror | Shift)):
        if moves:
            yield Moves(cast(list[Mirror | Shift], list(some)))
        else:
            yield from some


def _build(same_K: Sequence[Augment], generator: torch.Generator | None, white: float) -> Built:
    match same_K[0]:
        case Flip():
            return Mirror(cast(Sequence[Flip], same_K), generator)
        case Crop():
            return Shift(cast(Sequence[Crop], same_K), generator)
        case Rotate():
            return Turn(cast(Sequence[Rotate], same_K), generator, white)
        case Contrast():
            return ContrastChange(cast(Sequence[Contrast], same_K), generator, white)
        case Jitter():
            return JitterChange(cast(Sequence[Jitter], same_K), generator, white)
        case Noise():
            return NoiseChange(cast(Sequence[Noise], same_K), generator, white)
        case Erase():
            return Eraser(cast(Sequence[Erase], same_K), generator, white)
        case RandAugment():
            return Policy(cast(Sequence[RandAugment], same_K), generator, white)
