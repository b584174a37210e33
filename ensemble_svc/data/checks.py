"""What no honest number could come from, refused before anything trains; what looks odd, said.

Shapes: N rows, D columns, T targets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ensemble_svc.data.dataset import Dataset
from ensemble_svc.data.labels import shown
from ensemble_svc.data.oddities import find_oddities
from ensemble_svc.data.place import place_of
from ensemble_svc.data.shapes import shape_after
from ensemble_svc.data.split import Split
from ensemble_svc.errors import DataError
from ensemble_svc.spec.augment import Augment, Contrast, Crop, Jitter, RandAugment
from ensemble_svc.spec.data import DataSpec
from ensemble_svc.spec.job import Task
from ensemble_svc.spec.preprocess import Decorrelate, Impute, PerChannelCenter, Preprocess, Whiten
from ensemble_svc.spec.regularizers import CutMix, Regularizer

MOST_COLUMNS = 4096
"""Columns (or pixels) whose covariance is formed: 128 MiB in float64, 64 MiB in a member's weights."""


def check(dataset: Dataset, split: Split, spec: DataSpec, *, task: Task) -> tuple[str, ...]:
    """Warnings about data that can be used.

    Raises:
        DataError: data that cannot: an empty split, a feature or target that is NaN or infinite,
            a constant target, a class without training rows, a step that does not fit the data.
    """
    _check_steps(dataset, spec)
    _check_sizes(split, spec)
    check_covariances(dataset, spec.preprocess, num_rows=len(split.train))
    used = np.sort(np.concatenate([split.train, split.validation, split.test]))
    imputed = any(isinstance(step, Impute) for step in spec.preprocess)
    check_features(dataset, used, imputed=imputed)
    if task == "classification":
        _check_classes(dataset, split)
    else:
        check_targets(dataset, used)
        _check_variation(dataset, split)
    return tuple(find_oddities(dataset, split, spec))


def check_features(dataset: Dataset, rows: npt.NDArray[np.int64], *, imputed: bool) -> None:
    """Features of the rows are finite, or missing where ``imputed`` says they may be.

    A missing category is always allowed: it takes the place of an unseen one.

    Raises:
        DataError: naming the first row and column that are not.
    """
    if dataset.x.dtype.kind != "f":
        return
    num_numeric = dataset.x.shape[1] - len(dataset.categories)
    for at in _chunks(rows):
        x = dataset.x[at] if dataset.kind == "image" else dataset.x[at, :num_numeric]
        bad = np.isinf(x) if imputed else ~np.isfinite(x)
        if bad.any():
            first = tuple(int(i) for i in np.argwhere(bad)[0])
            raise DataError(_not_finite(dataset, int(at[first[0]]), first[1:], float(x[first])))


def _not_finite(dataset: Dataset, row: int, where: tuple[int, ...], value: float) -> str:
    name = "NaN" if np.isnan(value) else f"{'-' if value < 0 else ''}infinity"
    if dataset.kind == "image":
        channel, height, width = where
        return (
            f"{place_of(dataset, row)}, channel {channel}, pixel ({height}, {width}): {name}; "
            "images must be finite numbers. Mend or remove the image."
        )
    remedy = "add 'preprocess: [impute]', or mend the row" if np.isnan(value) else "mend or remove the row"
    column = dataset.features[where[0]]
    return f"{place_of(dataset, row)}, column '{column}': {name}; features must be finite: {remedy}."


def _check_steps(dataset: Dataset, spec: DataSpec) -> None:
    for i, step in enumerate(spec.preprocess):
        if isinstance(step, PerChannelCenter) and dataset.kind == "table":
            raise DataError(
                f"data.preprocess.{i}: per_channel_center is for images; for a table use standardize."
            )
        if isinstance(step, Impute) and dataset.kind == "image":
            raise DataError(f"data.preprocess.{i}: impute is for tables; images have no missing columns.")
    check_augment(dataset, spec.augment)


def check_covariances(
    dataset: Dataset, steps: Sequence[Preprocess], *, num_rows: int, member: int | None = None
) -> None:
    """Check that the rows can tell the covariances that the steps are fitted to.

    Args:
        num_rows: different rows that they are fitted on.
        member: whose rows these are; None for the whole training split.

    Raises:
        DataError: more axes than columns, a covariance too large to keep, or one of too few rows.
    """
    shape = (
        dataset.x.shape[1:] if dataset.kind == "image" else (dataset.x.shape[1] - len(dataset.categories),)
    )
    for i, step in enumerate(steps):
        width, noun = math.prod(shape), "pixels" if dataset.kind == "image" else "columns"
        if isinstance(step, Decorrelate | Whiten) and width > MOST_COLUMNS:
            raise DataError(
                f"data.preprocess.{i}: {step.name} keeps a matrix of {width} x {width} numbers for each member; "
                f"at most {MOST_COLUMNS} {noun}. Use standardize."
            )
        if isinstance(step, Decorrelate) and (step.components or 0) > width:
            raise DataError(
                f"data.preprocess.{i}.components: {step.components} axes, but the rows have {width} {noun}; "
                f"give at most {width}."
            )
        if isinstance(step, Whiten) and step.shrinkage == 0 and num_rows <= width:
            whose = "training rows" if member is None else f"different rows of member {member}"
            raise DataError(
                f"data.preprocess.{i}: {num_rows} {whose} cannot tell the covariance of {width} {noun}, which "
                "whiten inverts. Give it 'shrinkage: auto' (or a number such as 0.1), or more rows."
            )
        shape = shape_after(step, shape)


def check_augment(dataset: Dataset, augment: Sequence[Augment]) -> None:
    """Check that the changes fit the images.

    Raises:
        DataError: changes of a table, of brightness where black is not 0, or a margin wider than the image it
            mirrors.
    """
    for i, change in enumerate(augment):
        if dataset.kind == "table":
            raise DataError(f"data.augment.{i}: {change.name} is for images; this source is a table.")
        if isinstance(change, Contrast | Jitter | RandAugment) and dataset.black < 0:
            raise DataError(
                f"data.augment.{i}: {change.name} takes black as 0, but these images have pixels down to "
                f"{dataset.black:g}. Give images from 0 up, and standardize them in data.preprocess."
            )
        if (
            isinstance(change, Crop)
            and change.mode == "reflect"
            and change.padding >= min(dataset.x.shape[2:])
        ):
            raise DataError(
                f"data.augment.{i}.padding: {change.padding} pixels cannot be mirrored from images of "
                f"{dataset.x.shape[2]} x {dataset.x.shape[3]}; at most {min(dataset.x.shape[2:]) - 1}."
            )


def check_mixing(dataset: Dataset, rules: Sequence[Regularizer]) -> None:
    """Check that pieces are cut out of images alone.

    Raises:
        DataError: cutmix on a table.
    """
    for i, rule in enumerate(rules):
        if isinstance(rule, CutMix) and dataset.kind == "table":
            raise DataError(
                f"training.regularizers.{i}: cutmix is for images; this source is a table. Use mixup."
            )


def _check_sizes(split: Split, spec: DataSpec) -> None:
    validation = 0 if split.unseen else spec.validation
    asked = (("train", split.train, 1.0), ("validation", split.validation, validation))
    for name, rows, share in (*asked, ("test", split.test, spec.test)):
        if len(rows) == 0 and share != 0:
            raise DataError(
                f"the {name} split is empty; give it rows"
                + ("." if name == "train" else f", or write 'data.{name}: 0' to go without.")
            )


def _check_classes(dataset: Dataset, split: Split) -> None:
    num = len(dataset.classes)
    everywhere = np.bincount(dataset.y, minlength=num)
    absent = [dataset.classes[i] for i in np.flatnonzero(everywhere == 0)]
    if absent:
        raise DataError(
            f"classes without a single row: {shown(absent)}; class numbers are 0 to {num - 1} without gaps. "
            "Renumber the labels, or add rows."
        )
    if num < 2:
        raise DataError(f"the target is constant: all rows are of class '{shown(dataset.classes)}'.")
    counts = np.bincount(dataset.y[split.train], minlength=num)
    missing = [dataset.classes[i] for i in np.flatnonzero(counts == 0)]
    if missing:
        raise DataError(
            f"classes absent from the training split: {shown(missing)}; no member could learn them. "
            "Write 'data.stratify: true', add rows of them, or remove the class."
        )


def check_targets(dataset: Dataset, rows: npt.NDArray[np.int64]) -> None:
    """Regression targets of the rows are finite.

    Raises:
        DataError: naming the first row and target that are not.
    """
    bad = ~np.isfinite(dataset.y[rows])
    if bad.any():
        i, column = (int(k) for k in np.argwhere(bad)[0])
        value = dataset.y[rows[i], column].item()
        raise DataError(
            f"{place_of(dataset, int(rows[i]))}, target '{dataset.targets[column]}': {value}; "
            "targets must be finite numbers. Mend or remove the row."
        )


def _check_variation(dataset: Dataset, split: Split) -> None:
    y = dataset.y[split.train]
    for target in np.flatnonzero(y.max(axis=0) == y.min(axis=0)).tolist():
        raise DataError(
            f"target '{dataset.targets[target]}' is constant: {y[0, target]:g} in all {len(y)} "
            "training rows; there is nothing to learn. Is it the right column?"
        )


def _chunks(rows: npt.NDArray[np.int64], size: int = 8192) -> Iterator[npt.NDArray[np.int64]]:
    return (rows[i : i + size] for i in range(0, len(rows), size))
