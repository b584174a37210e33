"""Random changes of training images."""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ensemble_svc.registry import Choice, Elementwise, Registry, Shorthand
from ensemble_svc.spec.fields import Share

Probability = Annotated[float, Field(ge=0, le=1), Elementwise()]
Strength = Annotated[float, Field(ge=0, le=1), Elementwise()]
PolicyChange = Literal[
    "identity",
    "autocontrast",
    "equalize",
    "rotate",
    "solarize",
    "saturation",
    "posterize",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
]
POLICY: Final[tuple[PolicyChange, ...]] = get_args(PolicyChange)
"""The changes of RandAugment (arXiv:1909.13719, section 3)."""


class Flip(Choice):
    """Mirrors an image left to right with probability ``p``."""

    name: Literal["flip"] = "flip"
    p: Probability = 0.5
    """Probability for each image of each batch."""


class Crop(Choice):
    """Shifts an image by up to ``padding`` pixels: pads it, then crops it back at random."""

    name: Literal["crop"] = "crop"
    padding: Annotated[NonNegativeInt, Elementwise()] = 4
    """Pixels added on each side before the crop; 0 leaves the image where it is."""
    mode: Literal["reflect", "constant"] = "reflect"
    """What the added pixels hold: the mirrored image, or 0."""


class Rotate(Choice):
    """Turns an image around its centre by up to ``degrees`` either way, bilinearly."""

    name: Literal["rotate"] = "rotate"
    degrees: Annotated[float, Field(ge=0, le=180), Elementwise()] = 15.0
    """The largest angle."""
    mode: Literal["reflect", "constant"] = "reflect"
    """What comes in at the corners: the mirrored image, or 0."""


class Contrast(Choice):
    """Stretches or flattens an image around its mean brightness, by a factor of 1 - strength to 1 + strength."""

    name: Literal["contrast"] = "contrast"
    strength: Strength = 0.3
    """How far the factor may lie from 1; 1 reaches down to plain grey."""


class Jitter(Choice):
    """Colour jitter: brightness, contrast, saturation and hue each change by a factor of their own.

    Images that are not of three colours change in brightness and contrast alone.
    """

    name: Literal["jitter"] = "jitter"
    brightness: Strength = 0.2
    """How far the factor of all pixels may lie from 1."""
    contrast: Strength = 0.2
    """How far the factor around the mean brightness may lie from 1."""
    saturation: Strength = 0.2
    """How far the factor around each pixel's grey may lie from 1."""
    hue: Annotated[float, Field(ge=0, le=0.5), Elementwise()] = 0.02
    """The largest tint, as a share of the circle of colours."""


class Noise(Choice):
    """Adds Gaussian noise to each pixel, which is not cut off at 0 and 1."""

    name: Literal["noise"] = "noise"
    std: Annotated[NonNegativeFloat, Elementwise()] = 0.05
    """Standard deviation, pixels counted from 0 to 1."""


class Erase(Choice):
    """Covers a random rectangle with probability ``p`` (random erasing, arXiv:1708.04896)."""

    name: Literal["erase"] = "erase"
    p: Probability = 0.5
    """Probability for each image of each batch."""
    area: Annotated[tuple[Share, Share], Elementwise()] = (0.02, 0.33)
    """Smallest and largest share of the image."""
    ratio: Annotated[tuple[PositiveFloat, PositiveFloat], Elementwise()] = (0.3, 3.3)
    """Smallest and largest height of the rectangle over its width; tall and wide ones are equally likely."""
    fill: Annotated[float, Field(ge=0, le=1)] | Literal["random"] = 0.0
    """What covers it, pixels counted from 0 to 1; ``random`` draws each pixel of it."""


class RandAugment(Choice):
    """Changes each image ``num`` times, each time in one way drawn from a list (arXiv:1909.13719)."""

    name: Literal["rand_augment"] = "rand_augment"
    num: PositiveInt = 2
    """Changes of each image, one after another."""
    magnitude: Annotated[float, Field(ge=0, le=10), Elementwise()] = 5.0
    """How far each change goes: 10 turns by 30 degrees, shears by 0.3, shifts by 0.45 of the side, solarises all
    pixels, leaves 4 bits and puts factors at 0.1 or 1.9. 0 leaves the image as it is."""
    changes: Annotated[tuple[PolicyChange, ...], Field(min_length=1)] = POLICY
    """What is drawn from, all equally likely; one that is named twice is drawn twice as often."""


Augment = Annotated[
    Flip | Crop | Rotate | Contrast | Jitter | Noise | Erase | RandAugment,
    Field(discriminator="name"),
    Shorthand(),
]
AUGMENT: Registry[Choice] = Registry("augment", Augment)
