"""From a choice of preprocessing to its step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from ensemble_svc.data.elementwise import (
    CenterStep,
    ChannelCenterStep,
    ImputeStep,
    ScaleStep,
    StandardizeStep,
)
from ensemble_svc.data.fitting import Step
from ensemble_svc.data.linear import LinearStep
from ensemble_svc.spec.preprocess import (
    Center,
    Decorrelate,
    Impute,
    PerChannelCenter,
    Preprocess,
    Scale,
    Standardize,
    Whiten,
)


def build_steps(choices: Iterable[Preprocess], shape: tuple[int, ...]) -> list[Step]:
    """The steps, not yet fitted, each for the rows that the one before it puts out.

    Args:
        shape: of a row that the first takes.
    """
    steps: list[Step] = []
    for choice in choices:
        steps.append(build_step(choice, steps[-1].out_shape if steps else shape))
    return steps


def build_step(choice: Preprocess, shape: tuple[int, ...]) -> Step:
    """The step, not yet fitted, for rows of this shape."""
    match choice:
        case Center():
            return CenterStep(shape)
        case PerChannelCenter():
            return ChannelCenterStep(shape)
        case Scale():
            return ScaleStep(shape)
        case Standardize():
            return StandardizeStep(shape)
        case Decorrelate() | Whiten():
            return LinearStep(shape, choice)
        case Impute():
            return ImputeStep(shape, choice)
        case _:
            assert_never(choice)
