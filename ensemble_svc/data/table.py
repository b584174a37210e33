"""The ``csv`` and ``parquet`` sources: a target, features that are numbers or categories, an id.

Shapes: N rows, D columns (numbers first, then categories).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ensemble_svc.data.columns import (
    as_identities,
    as_numbers,
    as_words,
    is_text,
    read_csv,
    read_parquet,
    require,
)
from ensemble_svc.data.dataset import Array, Dataset
from ensemble_svc.data.labels import class_numbers
from ensemble_svc.data.paths import find_file
from ensemble_svc.data.several import Kinds, joined
from ensemble_svc.errors import DataError
from ensemble_svc.spec.data import Csv, Parquet
from ensemble_svc.spec.job import Task


def load_csv(source: Csv, *, task: Task, directory: Path, aside: Sequence[str] = ()) -> Dataset:
    """A csv file's rows. Raises: DataError."""
    table, path = _read_csv(source, directory)
    return assemble_table(table, source, task=task, path=path, aside=aside)


def csv_tasks(source: Csv, kinds: Kinds, *, directory: Path, aside: Sequence[str] = ()) -> Dataset:
    """A csv file's rows with several targets. Raises: DataError."""
    table, path = _read_csv(source, directory)
    return assemble_tasks(table, source, kinds, path=path, aside=aside)


def parquet_tasks(source: Parquet, kinds: Kinds, *, directory: Path, aside: Sequence[str] = ()) -> Dataset:
    """A parquet file's rows with several targets. Raises: DataError."""
    path = find_file(source.path, directory)
    return assemble_tasks(read_parquet(path), source, kinds, path=path, aside=aside)


def _read_csv(source: Csv, directory: Path) -> tuple[pa.Table, Path]:
    path = find_file(source.path, directory)
    text = (*source.categorical, *((source.id,) if source.id else ()))
    return read_csv(path, separator=source.separator, text=text), path


def assemble_tasks(
    table: pa.Table, source: Csv | Parquet, kinds: Kinds, *, path: Path, aside: Sequence[str]
) -> Dataset:
    """The rows as for a regression on all targets, each read as its own task asks.

    Raises:
        DataError: as ``assemble_table``.
    """
    targets = (source.target,) if isinstance(source.target, str) else source.target
    _check_names(table, source, targets=targets, path=path, aside=aside)

    def one(name: str, kind: Task) -> Dataset:
        own = source.model_copy(update={"target": name, "drop": (*source.drop, *(set(targets) - {name}))})
        return assemble_table(table, own, task=kind, path=path, aside=aside)

    found = joined(kinds, one, origin=path)
    return replace(found, columns={name: found.columns[name] for name in (*source.drop, *aside)})


def load_parquet(source: Parquet, *, task: Task, directory: Path, aside: Sequence[str] = ()) -> Dataset:
    """A parquet file's rows. Raises: DataError."""
    path = find_file(source.path, directory)
    return assemble_table(read_parquet(path), source, task=task, path=path, aside=aside)


def assemble_table(
    table: pa.Table, source: Csv | Parquet, *, task: Task, path: Path, aside: Sequence[str]
) -> Dataset:
    """A table's rows, as the source says what its columns are.

    Raises:
        DataError: a column that is not there, a value that is none of its kind.
    """
    targets = (source.target,) if isinstance(source.target, str) else source.target
    _check_names(table, source, targets=targets, path=path, aside=aside)
    ids = as_identities(table[source.id], source.id, path) if source.id else np.arange(table.num_rows)
    y, classes = _targets(table, targets, task=task, path=path)
    left = {*targets, *source.drop, *aside, source.id}
    features = [name for name in table.column_names if name not in left]
    if not features:
        raise DataError(f"{path}: no feature columns are left beside target, id and dropped ones.")
    words = [name for name in features if name in source.categorical or is_text(table[name])]
    counts = [name for name in features if name not in words]
    coded = {name: codes(as_words(table[name], name, path)) for name in words}
    columns = [as_numbers(table[name], name, path) for name in counts]
    return Dataset(
        x=np.column_stack([*columns, *(code for code, _ in coded.values())]),
        y=y,
        row=ids,
        kind="table",
        features=(*counts, *words),
        categories={name: values for name, (_, values) in coded.items()},
        classes=classes,
        targets=targets,
        columns={name: _aside(table[name], name, path) for name in (*source.drop, *aside)},
    )


def _check_names(
    table: pa.Table, source: Csv | Parquet, *, targets: Sequence[str], path: Path, aside: Sequence[str]
) -> None:
    require(table, targets, key="data.source.target", path=path)
    require(table, source.drop, key="data.source.drop", path=path)
    require(table, source.categorical, key="data.source.categorical", path=path)
    require(table, [source.id] if source.id else [], key="data.source.id", path=path)
    require(table, aside, key="data.split.column", path=path)
    for name in targets:
        if name in (*source.drop, *source.categorical, *aside, source.id) or targets.count(name) > 1:
            raise DataError(f"{path}: column '{name}' is the target; it can be nothing else besides.")


def _targets(
    table: pa.Table, targets: Sequence[str], *, task: Task, path: Path
) -> tuple[Array, tuple[str, ...]]:
    if not targets:
        raise DataError("data.source.target is an empty list; name the target column.")
    if task == "regression":
        return np.column_stack([as_numbers(table[name], name, path) for name in targets]), ()
    if len(targets) > 1:
        raise DataError(
            f"data.source.target names {len(targets)} columns; a classification has one target. "
            "Several are for 'task: regression'."
        )
    name = targets[0]
    where = f"column '{name}' of {path}"
    if pa.types.is_floating(table[name].type):
        _check_whole(as_numbers(table[name], name, path), where)
    labels = as_words(table[name], name, path)
    if None in labels:
        raise DataError(f"row {labels.index(None) + 1}, {where}: the label is missing; remove the row.")
    names = ordered({word for word in labels if word is not None})
    return class_numbers(np.array(labels, dtype=str), names, where=where, place=lambda i: f"row {i + 1}")


def _check_whole(values: npt.NDArray[np.float32], where: str) -> None:
    wrong = np.isfinite(values) & (values != np.floor(values))
    if wrong.any():
        i = int(np.argmax(wrong))
        raise DataError(
            f"row {i + 1}, {where}: {values[i].item():g} is no class; labels are text or whole numbers. "
            "For a number write 'task: regression'."
        )


def codes(
    words: Sequence[str | None], values: Sequence[str] | None = None
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Each word's place among the values, NaN where it is missing, and the values.

    Args:
        values: those an ensemble knows; a word that is none of them gets -1. Without them the
            values are the words themselves, in order.
    """
    known = ordered({word for word in words if word is not None}) if values is None else tuple(values)
    number: dict[str | None, float] = {value: float(i) for i, value in enumerate(known)}
    number[None] = np.nan
    return np.array([number.get(word, -1.0) for word in words], dtype=np.float32), known


def ordered(words: set[str]) -> tuple[str, ...]:
    """By size when all are whole numbers, else alphabetically."""
    whole = all(word.removeprefix("-").isdecimal() for word in words)
    return tuple(sorted(words, key=lambda word: (int(word), word))) if whole else tuple(sorted(words))


def _aside(column: pa.ChunkedArray, name: str, path: Path) -> Array:
    if is_text(column):
        return np.array([word or "" for word in as_words(column, name, path)], dtype=str)
    try:
        return column.to_numpy()
    except pa.ArrowException as fault:
        raise DataError(f"{path}: column '{name}' cannot be read: {fault}") from fault
