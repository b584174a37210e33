"""From a source's name and options to a Dataset; the one door to all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from ensemble_svc.data.dataset import Dataset
from ensemble_svc.data.factory import load_python, python_tasks
from ensemble_svc.data.idx import load_idx
from ensemble_svc.data.image import load_image_folder
from ensemble_svc.data.npz import load_npz, npz_tasks
from ensemble_svc.data.several import Kinds
from ensemble_svc.data.shipped import load_breast_cancer, load_diabetes, load_digits, shipped_columns
from ensemble_svc.data.table import csv_tasks, load_csv, load_parquet, parquet_tasks
from ensemble_svc.errors import DataError
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
from ensemble_svc.spec.tasks import JobTask, Task


def load_data(spec: DataSpec, *, task: JobTask, directory: Path, kinds: Kinds | None = None) -> Dataset:
    """A job's data; the column that tells the splits apart is kept out of the features.

    Args:
        kinds: of several tasks.

    Raises:
        DataError: see ``load``.
    """
    aside = (spec.split.column,) if isinstance(spec.split, Column) else ()
    if task == "multitask":
        return load_several(spec.source, kinds or {}, directory=directory, aside=aside)
    return load(spec.source, task=task, directory=directory, aside=aside)


def load_several(source: Source, kinds: Kinds, *, directory: Path, aside: Sequence[str] = ()) -> Dataset:
    """All rows of a source with the targets of several tasks.

    Raises:
        DataError: as ``load``; a source that has one target alone, or lacks that of a task.
    """
    match source:
        case BreastCancer() | Diabetes():
            return shipped_columns(source.name, kinds)
        case Csv():
            return csv_tasks(source, kinds, directory=directory, aside=aside)
        case Parquet():
            return parquet_tasks(source, kinds, directory=directory, aside=aside)
        case Npz():
            return npz_tasks(source, kinds, directory=directory)
        case PythonSource():
            return python_tasks(source, kinds, directory=directory)
        case Digits() | ImageFolder() | Idx():
            raise DataError(f"data.source '{source.name}' has one target; write 'task: classification'.")
        case _:
            assert_never(source)


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
