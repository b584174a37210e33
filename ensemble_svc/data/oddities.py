"""Data that can be used but that its owner should look at: each a sentence.

Shapes: N rows, D columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from ensemble_svc.data.dataset import Dataset
from ensemble_svc.data.dependence import dependent_columns
from ensemble_svc.data.labels import shown
from ensemble_svc.data.split import Split
from ensemble_svc.spec.data import DataSpec
from ensemble_svc.spec.preprocess import Decorrelate, Whiten

MANY_VALUES = 1000
"""A categorical column with more values is named: each value is an input of the network."""


def find_oddities(dataset: Dataset, split: Split, spec: DataSpec) -> Iterator[str]:
    """Warnings, the gravest first."""
    yield from _leaks(dataset, split)
    yield from _unused_shares(dataset, spec)
    if spec.augment and any(isinstance(step, Whiten) and step.shrinkage == 0 for step in spec.preprocess):
        yield (
            "data.preprocess: whiten is fitted on the images as they are and magnifies what hardly varies in "
            "them, and with it what data.augment changes there. Give it shrinkage, 0.1 for instance, or use "
            "per_channel_center."
        )
    if dataset.kind == "table":
        x = dataset.x[split.train].astype(np.float32, copy=False)
        yield from _numeric(dataset, x)
        if not any(isinstance(step, Decorrelate | Whiten) for step in spec.preprocess):
            yield from _dependent(dataset, x)
        yield from _categorical(dataset, x)


def _leaks(dataset: Dataset, split: Split) -> Iterator[str]:
    keys = _keys(dataset)
    for name, rows in (("test", split.test), ("validation", split.validation)):
        alike = rows[np.isin(keys[rows], keys[split.train])]
        trained = set(digests(dataset, split.train[np.isin(keys[split.train], keys[alike])]))
        twice = sum(digest in trained for digest in digests(dataset, alike))
        if twice:
            yield (
                f"{twice} of {len(rows)} {name} rows are copies of training rows (same features and target): "
                f"the {name} numbers will look better than they are. Remove duplicates before splitting."
            )


def _keys(dataset: Dataset) -> npt.NDArray[np.uint64]:
    """A number for each row, equal where the features are: the sum of the row's bytes as words."""
    flat = np.ascontiguousarray(dataset.x).reshape(len(dataset), -1)
    width = flat.shape[1] * flat.itemsize
    word = next(size for size in (8, 4, 2, 1) if width % size == 0)
    return flat.view(f"u{word}").sum(axis=1, dtype=np.uint64)


def digests(dataset: Dataset, rows: npt.NDArray[np.int64]) -> Iterator[bytes]:
    """What tells rows apart: a hash of each one's numbers and target."""
    for i in rows:
        digest = blake2b(np.ascontiguousarray(dataset.x[i]).data, digest_size=16)
        digest.update(dataset.y[i].tobytes())
        yield digest.digest()


def _unused_shares(dataset: Dataset, spec: DataSpec) -> Iterator[str]:
    for part, share in (("test", spec.test), ("validation", spec.validation)):
        usual = DataSpec.model_fields[part].default
        if part in dataset.splits and not isinstance(share, str) and share not in (0, usual):
            yield (
                f"data.{part}: {share} is not drawn, for the source has a '{part}' split of its own "
                f"({len(dataset.splits[part])} rows), which is used."
            )


def _numeric(dataset: Dataset, x: npt.NDArray[np.float32]) -> Iterator[str]:
    num = x.shape[1] - len(dataset.categories)
    names = dataset.features[:num]
    empty: npt.NDArray[np.bool_] = np.atleast_1d(np.isnan(x[:, :num]).all(axis=0))
    if empty.any():
        yield f"columns without a value in the training rows: {shown(_at(names, empty))}; they become 0."
    low = np.where(np.isnan(x[:, :num]), np.inf, x[:, :num]).min(axis=0, initial=np.inf)
    high = np.where(np.isnan(x[:, :num]), -np.inf, x[:, :num]).max(axis=0, initial=-np.inf)
    constant = (low == high) & ~empty
    if constant.any():
        listed = shown(_at(names, constant))
        yield f"columns that are constant on the training rows: {listed}; they tell nothing."
    first: dict[bytes, str] = {}
    for name, column in zip(names, np.ascontiguousarray(x[:, :num].T), strict=True):
        twin = first.setdefault(blake2b(column.data, digest_size=16).digest(), name)
        if twin != name and not constant[names.index(name)] and not empty[names.index(name)]:
            yield f"column '{name}' repeats column '{twin}' in all training rows; drop one."


def _dependent(dataset: Dataset, x: npt.NDArray[np.float32]) -> Iterator[str]:
    num = x.shape[1] - len(dataset.categories)
    columns = _at(dataset.features[:num], dependent_columns(x[:, :num]))
    if columns:
        yield (
            f"columns that are nearly a linear function of the other columns: {shown(columns)}; "
            "training is slow along what they hardly tell apart. Drop some of them, or add decorrelate or "
            "whiten to data.preprocess."
        )


def _categorical(dataset: Dataset, x: npt.NDArray[np.float32]) -> Iterator[str]:
    num = x.shape[1] - len(dataset.categories)
    for position, (name, values) in enumerate(dataset.categories.items(), start=num):
        missing = int(np.isnan(x[:, position]).sum())
        if missing:
            yield (
                f"column '{name}': {missing} training rows have no value; a missing value is read like one "
                "that was never seen."
            )
        if len(values) > min(MANY_VALUES, max(len(x) // 2, 20)):
            yield (
                f"column '{name}' has {len(values)} different values in {len(dataset)} rows, each an input "
                "of the network. Is it an id? Then name it in data.source.id or data.source.drop."
            )
        words = [value for value in values if not _is_number(value)]
        if 0 < len(words) <= len(values) // 2 and len(values) > 10:
            yield (
                f"column '{name}' is read as categories because of {shown([repr(w) for w in words], 3)}; "
                "its other values are numbers. If it is a number, leave missing fields empty or write NA."
            )


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _at(names: tuple[str, ...], chosen: npt.NDArray[np.bool_]) -> list[str]:
    return [names[i] for i in np.flatnonzero(chosen)]
