"""From plain arrays to a Dataset; what npz, idx, shipped and python sources share.

Shapes: N rows, D columns, T targets, images [N, C, H, W].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ensemble_svc.data.dataset import Array, Dataset
from ensemble_svc.data.labels import class_numbers, numbers, to_float32
from ensemble_svc.data.place import place
from ensemble_svc.errors import DataError
from ensemble_svc.spec.job import Task

Layout: TypeAlias = Literal["auto", "NHWC", "NCHW"]
CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Arrays:
    """What a source read, before its meaning is checked."""

    x: Array
    y: Array
    origin: str
    """The file or function, for messages."""
    classes: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None
    row: Array | None = None
    splits: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    layout: Layout = "auto"


def assemble(raw: Arrays, *, task: Task) -> Dataset:
    """A Dataset of arrays whose shapes and types fit together.

    Raises:
        DataError: no rows, x and y of different length, a shape or type that is no table and no
            image, a label that is no class number.
    """
    _check_lengths(raw)
    x = as_inputs(raw.x, layout=raw.layout, origin=raw.origin)
    row = np.arange(len(x)) if raw.row is None else _identities(raw.row, raw.origin)
    kind: Literal["table", "image"] = "table" if x.ndim == 2 else "image"
    where = f"{raw.origin}: y"
    if task == "classification":
        y, classes = class_numbers(raw.y, raw.classes, where=where, place=lambda i: place(i, row, raw.splits))
        targets = raw.targets or ("y",)
        return Dataset(x, y, row, kind, _features(raw, x), {}, classes, targets, raw.splits)
    y_NT = numbers(raw.y, where=where)
    targets = raw.targets or _numbered("y", y_NT.shape[1])
    return Dataset(x, y_NT, row, kind, _features(raw, x), {}, (), targets, raw.splits)


def as_inputs(x: Array, *, layout: Layout, origin: str) -> Array:
    """Tables as [N, D] float32; images as [N, C, H, W], uint8 as they are, other numbers float32.

    Args:
        x: [N] or [N, D] for a table; [N, H, W], [N, H, W, C] or [N, C, H, W] for images.

    Raises:
        DataError: another shape, no numbers, or axes whose order cannot be told.
    """
    if x.dtype.kind not in "buif":
        raise DataError(f"{origin}: x holds {x.dtype}; features are numbers.")
    if 0 in x.shape[1:] or x.ndim not in (1, 2, 3, 4):
        raise DataError(
            f"{origin}: x has shape {x.shape}; allowed: [rows, columns], [rows, height, width] "
            "and [rows, height, width, channels] (or channels first)."
        )
    if x.ndim <= 2:
        return to_float32(x.reshape(len(x), -1), where=f"{origin}: x")
    images = channels_first(x, layout=layout, origin=origin)
    return np.ascontiguousarray(images) if x.dtype == np.uint8 else to_float32(images, where=f"{origin}: x")


def channels_first(x: Array, *, layout: Layout, origin: str) -> Array:
    """A view [N, C, H, W] of images [N, H, W], [N, H, W, C] or [N, C, H, W].

    Raises:
        DataError: ``auto``, and neither or both of the axes could be channels (1, 3 or 4).
    """
    if x.ndim == 3:
        return x[:, None]
    if layout == "auto":
        first, last = x.shape[1] in CHANNELS, x.shape[3] in CHANNELS
        if first == last:
            raise DataError(
                f"{origin}: x has shape {x.shape}; channels could be {'either' if first else 'neither'} "
                "axis 1 or 3 (1, 3 or 4 channels). Write data.source.layout: NHWC or NCHW."
            )
        layout = "NCHW" if first else "NHWC"
    return x if layout == "NCHW" else x.transpose(0, 3, 1, 2)


def _check_lengths(raw: Arrays) -> None:
    if raw.x.ndim == 0 or raw.y.ndim == 0 or len(raw.x) == 0:
        raise DataError(f"{raw.origin}: x has shape {raw.x.shape}, y {raw.y.shape}: there are no rows.")
    for name, array in (("y", raw.y), ("row", raw.row)):
        if array is not None and (array.ndim == 0 or len(array) != len(raw.x)):
            raise DataError(
                f"{raw.origin}: x has {len(raw.x)} rows, {name} has shape {array.shape}; "
                "they must have one entry for each row."
            )


def _identities(row: Array, origin: str) -> Array:
    if row.ndim != 1 or row.dtype.kind not in "iuUS":
        raise DataError(f"{origin}: row has shape {row.shape} of {row.dtype}; ids are integers or text.")
    return row.astype(np.int64) if row.dtype.kind in "iu" else row.astype(str)


def _features(raw: Arrays, x: Array) -> tuple[str, ...]:
    if x.ndim != 2:
        return ()
    names = raw.features or _numbered("x", x.shape[1])
    if len(names) != x.shape[1] or len(set(names)) != len(names):
        raise DataError(
            f"{raw.origin}: {len(names)} feature names ({len(set(names))} different) for "
            f"{x.shape[1]} columns; each column needs a name of its own."
        )
    return names


def _numbered(letter: str, count: int) -> tuple[str, ...]:
    return (letter,) if count == 1 and letter == "y" else tuple(f"{letter}{i}" for i in range(count))


def concatenate(parts: Sequence[Array], *, names: Sequence[str], origin: str) -> Array:
    """One array of several that must agree in type and row shape.

    Raises:
        DataError: naming the two that differ.
    """
    for part, name in zip(parts[1:], names[1:], strict=True):
        same_kind = part.dtype.kind == parts[0].dtype.kind and (part.dtype == np.uint8) == (
            parts[0].dtype == np.uint8
        )
        if part.shape[1:] != parts[0].shape[1:] or not same_kind:
            raise DataError(
                f"{origin}: '{names[0]}' has rows of {parts[0].shape[1:]} {parts[0].dtype}, "
                f"'{name}' of {part.shape[1:]} {part.dtype}; they must agree."
            )
    if len(parts) == 1:
        return parts[0]
    whole = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), np.result_type(*parts))
    return np.concatenate(parts, out=whole)
