"""Which rows train, which select, which report: a function of the values and the job's seed alone.

Shapes: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import assert_never

import numpy as np
import numpy.typing as npt

from ensemble_svc.data.archive import array_names, read_array
from ensemble_svc.data.dataset import Dataset
from ensemble_svc.data.npz import SYNONYMS
from ensemble_svc.data.paths import find_file
from ensemble_svc.data.place import place_of
from ensemble_svc.data.rows import row_positions
from ensemble_svc.data.shares import draw_shares
from ensemble_svc.errors import DataError, did_you_mean
from ensemble_svc.spec.data import UNSEEN, Column, DataSpec, Fractions, Indices
from ensemble_svc.spec.job import Task

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Row positions, sorted; no row stands in two of them."""

    train: Rows
    validation: Rows
    test: Rows
    unseen: bool = False
    """Whether training rows judge the members that left them out, in place of validation rows."""

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the positions."""
        digest = sha256()
        for name, rows in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            digest.update(f"{name}{len(rows)}".encode())
            digest.update(np.ascontiguousarray(rows, dtype="<i8").data)
        return digest.hexdigest()


def make_split(dataset: Dataset, spec: DataSpec, *, task: Task, seed: int, directory: Path = Path()) -> Split:
    """The job's split.

    Named splits (of the source, of a column, of a file of indices) are taken as they are. A share
    that has no named split is drawn from the named training rows, or from all rows where there
    are no names; it is a share of those.

    Args:
        directory: where a relative path to a file of indices starts.

    Raises:
        DataError: unknown or overlapping names, shares that leave no training rows, a class with
            too few rows to stand in every split.
    """
    named = _named(dataset, spec, directory)
    unseen = spec.validation in UNSEEN
    wanted = (("test", spec.test), ("validation", 0.0 if unseen else spec.validation))
    parts = {part: _own(named, part, share) for part, share in wanted}
    pool = _pool(dataset, named, parts)
    _check_overlap(dataset, {"train": pool, **{k: rows for k, rows in parts.items() if rows is not None}})
    shares = tuple(
        0.0 if isinstance(share, str) or parts[part] is not None else share for part, share in wanted
    )
    labels = dataset.y[pool] if task == "classification" and spec.stratify else None
    drawn = draw_shares(len(pool), shares, labels=labels, classes=dataset.classes, seed=seed)
    test, validation = (
        np.sort(pool[own]) if rows is None else rows
        for own, rows in zip(drawn, (parts["test"], parts["validation"]), strict=True)
    )
    rest = np.ones(len(pool), dtype=bool)
    rest[np.concatenate(drawn)] = False
    return Split(train=pool[rest], validation=validation, test=test, unseen=unseen)


def _named(dataset: Dataset, spec: DataSpec, directory: Path) -> Mapping[str, Rows]:
    match spec.split:
        case Fractions():
            return dataset.splits
        case Column():
            return _by_column(dataset, spec.split, spec)
        case Indices():
            return _by_indices(dataset, spec.split, directory)
        case _:
            assert_never(spec.split)


def _own(named: Mapping[str, Rows], part: str, share: float | str) -> Rows | None:
    """The rows that have a name for this part; None when they are to be drawn."""
    if isinstance(share, str):
        name = SYNONYMS.get(share, share) if share not in named else share
        if name not in named:
            known = ", ".join(named) or "none"
            raise DataError(
                f"data.{part} names the split '{share}', which the data do not have."
                f"{did_you_mean(share, named)} Named splits: {known}. Or give a fraction, such as 0.2."
            )
        return named[name]
    if part not in named:
        return None
    return named[part] if share > 0 else np.empty(0, dtype=np.int64)


def _pool(dataset: Dataset, named: Mapping[str, Rows], parts: Mapping[str, Rows | None]) -> Rows:
    """Rows that train, or from which a share is drawn."""
    if "train" in named:
        return named["train"]
    free = np.ones(len(dataset), dtype=bool)
    for rows in (*(r for r in parts.values() if r is not None), *named.values()):
        free[rows] = False
    if not free.any():
        raise DataError(
            f"no rows are left to train on: all stand in the named splits {', '.join(named)}. "
            "Call the one that trains 'train'."
        )
    return np.flatnonzero(free)


def _check_overlap(dataset: Dataset, parts: Mapping[str, Rows]) -> None:
    names = list(parts)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = np.intersect1d(parts[first], parts[second])
            if both.size:
                raise DataError(
                    f"{both.size} rows stand in the {first} and in the {second} split, the first is "
                    f"{place_of(dataset, int(both[0]))}; a row may stand in one only."
                )


def _by_column(dataset: Dataset, choice: Column, spec: DataSpec) -> Mapping[str, Rows]:
    if choice.column not in dataset.columns:
        why = (
            "is read as a feature; add it to data.source.drop"
            if choice.column in dataset.features
            else f"is not there.{did_you_mean(choice.column, dataset.columns)}"
        )
        raise DataError(f"data.split.column: column '{choice.column}' {why}")
    names = ("train", "validation", "test")
    allowed = (*names, *(name for name in (spec.validation, spec.test) if isinstance(name, str)))
    values = dataset.columns[choice.column].astype(str)
    folded = np.array([SYNONYMS.get(value, value) for value in values.tolist()], dtype=str)
    wrong = ~np.isin(folded, allowed)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise DataError(
            f"{place_of(dataset, i)}, column '{choice.column}': {values[i].item()!r} names no split."
            f"{did_you_mean(values[i].item(), names)} Allowed: {', '.join(dict.fromkeys(allowed))}."
        )
    return {name: np.flatnonzero(folded == name) for name in dict.fromkeys(folded.tolist())}


def _by_indices(dataset: Dataset, choice: Indices, directory: Path) -> Mapping[str, Rows]:
    path = find_file(choice.path, directory)
    held = array_names(path)
    named = {}
    for name in ("train_idx", "validation_idx", "val_idx", "test_idx"):
        if name in held:
            rows = np.atleast_2d(read_array(path, name))
            if choice.index >= len(rows):
                raise DataError(
                    f"data.split.index: {choice.index}, but '{name}' of {path} holds {len(rows)} splits, "
                    f"numbered 0 to {len(rows) - 1}."
                )
            split = name.removesuffix("_idx")
            where = f"{path}: {name}[{choice.index}]"
            named[SYNONYMS.get(split, split)] = row_positions(rows[choice.index], len(dataset), where=where)
    if "train" not in named or "test" not in named:
        raise DataError(f"{path}: holds {', '.join(held)}; it must hold train_idx and test_idx.")
    return named
