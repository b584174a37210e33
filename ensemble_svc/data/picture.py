"""An image of a data set as a small picture that a browser shows.

Shapes: images [C, H, W].
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from ensemble_svc.data.dataset import Array


def png(image_CHW: Array, black: float, white: float, *, most: int) -> bytes:
    """The bytes of a PNG; of channels other than one or three the first is shown in grey.

    Args:
        black, white: what the darkest and the lightest pixel are.
        most: pixels of the longer side; a larger image is made smaller by the mean over areas.
    """
    span = white - black or 1.0
    share = np.clip((np.asarray(image_CHW, dtype=np.float64) - black) / span, 0, 1)
    pixels = np.rint(255 * np.nan_to_num(share)).astype(np.uint8)
    shown = Image.fromarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0])
    if max(shown.size) > most:
        shown.thumbnail((most, most), Image.Resampling.BOX)
    body = io.BytesIO()
    shown.save(body, "PNG", optimize=True)
    return body.getvalue()
