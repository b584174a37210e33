"""The shape of a row after a step, known before anything is fitted (and without torch)."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ensemble_svc.spec.preprocess import Decorrelate, Preprocess, Whiten

Shape = tuple[int, ...]


def shape_after(step: Preprocess, shape: Shape) -> Shape:
    """The shape of a row that comes out of the step: [D] or [C, H, W]."""
    if isinstance(step, Decorrelate):
        return (step.components or math.prod(shape),)
    if isinstance(step, Whiten) and step.method == "pca":
        return (math.prod(shape),)
    return shape


def shape_through(steps: Iterable[Preprocess], shape: Shape) -> Shape:
    """The same after all steps."""
    for step in steps:
        shape = shape_after(step, shape)
    return shape
