"""What networks of images ask of their input."""

from __future__ import annotations

from ensemble_svc.errors import Fault, SpecError


def image_shape(name: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of one row.

    Raises:
        SpecError: rows that are no images.
    """
    if len(input_shape) != 3:
        found = f"{name} reads images [channels, height, width], but a row has the shape {list(input_shape)}."
        raise SpecError([Fault("model.name", f"{found} Use model: mlp.")])
    num_channels, height, width = input_shape
    return num_channels, height, width
