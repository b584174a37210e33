"""Random changes of training images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt

from ensemble_svc.registry import Choice, Elementwise, Registry, Shorthand


class Flip(Choice):
    """Mirrors an image left to right with probability ``p``."""

    name: Literal["flip"] = "flip"
    p: Annotated[float, Field(ge=0, le=1), Elementwise()] = 0.5
    """Probability for each image of each batch."""


class Crop(Choice):
    """Shifts an image by up to ``padding`` pixels: pads it, then crops it back at random."""

    name: Literal["crop"] = "crop"
    padding: Annotated[NonNegativeInt, Elementwise()] = 4
    """Pixels added on each side before the crop; 0 leaves the image where it is."""
    mode: Literal["reflect", "constant"] = "reflect"
    """What the added pixels hold: the mirrored image, or 0."""


Augment = Annotated[Flip | Crop, Field(discriminator="name"), Shorthand()]
AUGMENT: Registry[Choice] = Registry("augment", Augment)
