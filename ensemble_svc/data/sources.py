"""From a source's name and options to a Dataset; the one door to all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from ensemble_svc.data.dataset import Dataset
from ensemble_svc.data.factory import load_python
from ensemble_svc.data.idx import load_idx
from ensemble_svc.data.image import load_image_folder
from ensemble_svc.data.npz import load_npz
from ensemble_svc.data.shipped import load_breast_cancer, load_diabetes, load_digits
from ensemble_svc.data.table import load_csv, load_parquet
from ensemble_svc.spec.data import (
    BreastCancer,
    Column,
    Csv,
    DataSpec,
    Diabetes,
    Digits,
    Idx,
    ImageFolder,
    Npz,
    Parquet,
    PythonSource,
    Source,
)
from ensemble_svc.spec.job import Task


def load_data(spec: DataSpec, *, task: Task, directory: Path) -> Dataset:
    """A job's data; the column that tells the splits apart is kept out of the features.

    Raises:
        DataError: see ``load``.
    """
    aside = (spec.split.column,) if isinstance(spec.split, Column) else ()
    return load(spec.source, task=task, directory=directory, aside=aside)


def load(source: Source, *, task: Task, directory: Path, aside: Sequence[str] = ()) -> Dataset:
    """All rows of a source, with nothing fitted on them.

    Args:
        directory: where relative paths start and the user's modules lie.
        aside: columns of a table that are no features, beside those the source drops.

    Raises:
        DataError: what is missing or damaged, where, and what to do.
    """
    match source:
        case Digits():
            return load_digits(task=task)
        case BreastCancer():
            return load_breast_cancer(task=task)
        case Diabetes():
            return load_diabetes(task=task)
        case Npz():
            return load_npz(source, task=task, directory=directory)
        case Csv():
            return load_csv(source, task=task, directory=directory, aside=aside)
        case Parquet():
            return load_parquet(source, task=task, directory=directory, aside=aside)
        case ImageFolder():
            return load_image_folder(source, task=task, directory=directory)
        case Idx():
            return load_idx(source, task=task, directory=directory)
        case PythonSource():
            return load_python(source, task=task, directory=directory)
        case _:
            assert_never(source)
