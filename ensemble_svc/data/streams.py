"""Labelled sources a piece at a time, in an ensemble's terms: the rows of ``evaluate``.

Tables and arrays are read from their files in pieces, a folder of images file by file; the sources that come as arrays
anyway (shipped data, idx, your own function) are held whole and handed out in pieces. A table or an array may lie in
several files (``shards.find_shards``).

Shapes: N rows of a piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ensemble_svc.data.arrays import Arrays, assemble, channels_first
from ensemble_svc.data.batches import array_batches
from ensemble_svc.data.columns import require
from ensemble_svc.data.conform import conform
from ensemble_svc.data.dataset import Array, Dataset, InputSchema
from ensemble_svc.data.image import list_images, read_images
from ensemble_svc.data.inputs import counted_from, piece_rows, table_batches
from ensemble_svc.data.npz import names_in, pairs_in
from ensemble_svc.data.paths import find_file, find_folder
from ensemble_svc.data.several import Kinds
from ensemble_svc.data.shards import find_shards
from ensemble_svc.data.sources import load, load_several
from ensemble_svc.data.table import assemble_table, assemble_tasks
from ensemble_svc.errors import DataError
from ensemble_svc.spec.data import Csv, ImageFolder, Npz, Parquet, Source, Table
from ensemble_svc.spec.tasks import JobTask


@dataclass
class Labels:
    """What is known of the labels of some rows."""

    zero_based: bool = False
    """Whether one of them is no number, or is 0: numbers count classes from 0."""


def shards_of(source: Source, directory: Path) -> list[Source]:
    """One source for each file; the source itself where it is one.

    Raises:
        DataError: a folder or a pattern without files.
    """
    match source:
        case Csv():
            suffixes: tuple[str, ...] = (".csv", ".tsv", ".txt")
        case Parquet():
            suffixes = (".parquet", ".pq")
        case Npz():
            suffixes = (".npz",)
        case _:
            return [source]
    files = find_shards(source.path, directory, suffixes)
    return [source.model_copy(update={"path": str(file)}) for file in files]


def as_known(source: Source, schema: InputSchema) -> Source:
    """The source with the ensemble's categories read as categories, whatever their values look like."""
    if not isinstance(source, Table):
        return source
    known = [name for name, _ in schema.categories]
    return source.model_copy(update={"categorical": tuple(dict.fromkeys([*source.categorical, *known]))})


def stream_labelled(
    source: Source,
    schema: InputSchema,
    *,
    task: JobTask,
    kinds: Kinds,
    directory: Path,
    aside: Sequence[str] = (),
    missing: bool | None = None,
    labels: Labels | None = None,
) -> Iterator[Dataset]:
    """The rows of one source in pieces, coded as the ensemble's training data were; none where it has none.

    Args:
        aside: columns of a table to slice by, that are kept beside its features if they are none of the ensemble's.
        missing: as ``conform``.
        labels: learns what the labels are, piece by piece; it is for ``check_labels`` once all files are read.

    Raises:
        DataError: as ``load`` and ``conform``, when the piece with the fault is reached.
    """
    source = as_known(source, schema)
    seen = 0
    match source:
        case Csv() | Parquet():
            beside = tuple(n for n in aside if n not in (*schema.features, *source.drop, source.id))
            pieces = _tables(source, schema, task, kinds, directory, beside)
        case Npz() if task != "multitask":
            pieces = _arrays(source, schema, task, directory)
        case ImageFolder() if task == "classification":
            pieces = _images(source, schema, directory)
        case _:
            pieces = cut(_whole(source, task, kinds, directory), piece_rows(schema))
    for piece in pieces:
        named = numbered(piece, schema)
        if labels is not None:
            labels.zero_based |= named is piece or bool((named.y == 0).any())
        with counted_from(seen):
            yield conform(named, schema, missing=missing)
        seen += len(piece)


def check_labels(zero_based: bool, schema: InputSchema) -> None:
    """Refuse labels that seem to count classes from 1.

    Args:
        zero_based: as ``Labels`` has it, of all rows.

    Raises:
        DataError: numbers, and not one of them 0, for classes with names.
    """
    if schema.classes and not zero_based:
        raise DataError(
            "the labels are numbers above 0, the ensemble's classes have names; numbers count classes from 0. "
            f"Name the classes: {', '.join(schema.classes[:10])}."
        )


def numbered(piece: Dataset, schema: InputSchema) -> Dataset:
    """A piece whose labels are bare numbers, with all numbers up to the largest as its classes.

    A piece need not hold every class, and only from 0 on are they taken for numbers of the ensemble's classes.
    """
    words = piece.classes
    if not words or set(words) & set(schema.classes) or not all(word.isdecimal() for word in words):
        return piece
    numbers = np.array([int(word) for word in words], dtype=np.int64)
    if numbers.max() >= len(schema.classes):
        return piece
    return replace(piece, y=numbers[piece.y], classes=tuple(map(str, range(int(numbers.max()) + 1))))


def cut(data: Dataset, rows: int, positions: Array | None = None) -> Iterator[Dataset]:
    """Rows of a data set in pieces.

    Args:
        positions: of the rows, in order; all of them when absent.
    """
    at_N = np.arange(len(data)) if positions is None else positions
    for start in range(0, len(at_N), rows):
        at = at_N[start : start + rows]
        columns = {name: values[at] for name, values in data.columns.items()}
        yield replace(data, x=data.x[at], y=data.y[at], row=data.row[at], columns=columns, splits={})


def _whole(source: Source, task: JobTask, kinds: Kinds, directory: Path) -> Dataset:
    if task == "multitask":
        return load_several(source, kinds, directory=directory)
    return load(source, task=task, directory=directory)


def _tables(
    source: Csv | Parquet,
    schema: InputSchema,
    task: JobTask,
    kinds: Kinds,
    directory: Path,
    aside: Sequence[str],
) -> Iterator[Dataset]:
    path, start = find_file(source.path, directory), 0
    ids = (source.id,) if source.id else ()
    targets = (source.target,) if isinstance(source.target, str) else source.target
    separator = source.separator if isinstance(source, Csv) else ","
    needed = (*schema.features, *targets, *ids, *source.drop, *source.categorical, *aside)
    pieces = table_batches(
        path,
        separator=separator,
        rows=piece_rows(schema),
        text=(*source.categorical, *ids),
        only=needed,
    )
    for table in pieces:
        require(table, aside, key="--slices", path=path)
        with counted_from(start):
            if task == "multitask":
                piece = assemble_tasks(table, source, kinds, path=path, aside=aside)
            else:
                piece = assemble_table(table, source, task=task, path=path, aside=aside)
        yield piece if source.id else replace(piece, row=piece.row + start)
        start += len(piece)


def _arrays(source: Npz, schema: InputSchema, task: JobTask, directory: Path) -> Iterator[Dataset]:
    path = find_file(source.path, directory)
    start = 0
    classes, features = names_in(path, "class_names"), names_in(path, "feature_names")
    for _, x_name, y_name in pairs_in(path, source):
        for x, y in array_batches(path, [x_name, y_name], rows=piece_rows(schema)):
            if x.ndim in (3, 4):
                x = channels_first(x, layout=source.layout, origin=f"{path}: {x_name}")
            raw = Arrays(x, y, str(path), classes=classes, features=features, layout="NCHW")
            assert task != "multitask"
            with counted_from(start):
                piece = assemble(raw, task=task)
            yield replace(piece, row=piece.row + start)
            start += len(x)


def _images(source: ImageFolder, schema: InputSchema, directory: Path) -> Iterator[Dataset]:
    folder, rows = find_folder(source.path, directory), piece_rows(schema)
    files, labels, _ = list_images(folder)
    for start in range(0, len(files), rows):
        some = files[start : start + rows]
        raw = Arrays(
            x=read_images(some, mode=source.mode, size=source.size),
            y=np.array(labels[start : start + rows], dtype=str),
            origin=str(folder),
            row=np.array([file.relative_to(folder).as_posix() for file in some], dtype=str),
            layout="NCHW",
        )
        yield assemble(raw, task="classification")
