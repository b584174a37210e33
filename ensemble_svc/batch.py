"""A finished ensemble on new rows: batch prediction, a piece at a time.

Shapes: N rows, C classes, T targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ensemble_svc.data.dataset import Array, Dataset, InputSchema
from ensemble_svc.data.inputs import stream_inputs, whole_ids_of
from ensemble_svc.data.shards import TABLES, find_shards
from ensemble_svc.errors import DataError
from ensemble_svc.foreign import imputes
from ensemble_svc.predictor import Ensemble, Prediction
from ensemble_svc.spec.data import Csv, ImageFolder
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spreading import Spread, Tell, in_turn, no_rows
from ensemble_svc.store.run import Run
from ensemble_svc.writing import Columns, check_format, written


@dataclass(frozen=True)
class Predicted:
    """What became of the files that were predicted."""

    rows: int
    broken: tuple[str, ...]
    """What is wrong with each file that could not be read to its end."""


def predict_file(
    run: Path,
    source: Path,
    output: Path,
    *,
    id_column: str | None = None,
    strict: bool = False,
    tell: Tell = lambda rows: None,
    spread: Spread = in_turn,
) -> Predicted:
    """Predict every row of ``source`` and write the answer to ``output``, a piece at a time.

    Of several files (a folder of tables, or a pattern) the answer has a column ``shard`` with each row's file; rows
    without an id are numbered within their file. A file that cannot be read to its end is named, its rows before the
    fault are kept, and the others go on.

    Args:
        strict: stop at the first file that cannot be read.
        tell: hears how many rows have been predicted.
        spread: does the files, where there are several.

    Raises:
        DataError: an input the ensemble cannot read, the only one or with ``strict``; an output format that is not
            offered; not one row.
    """
    check_format(output)
    reader = Reader.load(run)
    shards, rows, broken = _shards(source, reader.ensemble.schema), 0, list[str]()
    several = len(shards) > 1
    load = partial(Reader.load, run.absolute()) if several else lambda: reader
    whole = _whole_ids(shards, reader, id_column) if several else None
    work = partial(predict_shard, id_column, several, whole)
    with (
        written(output) as write,
        closing((spread if several else in_turn)(load, work, shards, tell=tell)) as found,
    ):
        for _, piece in found:
            if not isinstance(piece, DataError):
                write(piece)
                rows += len(piece["row"])
            elif strict or not several:
                raise piece
            else:
                broken.append(str(piece))
        if not rows:
            raise DataError(no_rows(broken, source))
    return Predicted(rows, tuple(broken))


@dataclass(frozen=True)
class Reader:
    """What every piece of rows is predicted with."""

    ensemble: Ensemble
    job: JobSpec

    @classmethod
    def load(cls, run: Path) -> Reader:
        """Of a run folder.

        Raises:
            StoreError: a run that is not finished.
        """
        return cls(Ensemble.load(run), Run.open(run).job())


def predict_shard(
    id_column: str | None,
    named: bool,
    whole: bool | None,
    reader: Reader,
    _number: int,
    shard: Path,
    tell: Tell,
) -> Iterator[Columns]:
    """The answer of one file, a piece at a time.

    Args:
        named: whether the rows say their file, in the column ``shard``.
        whole: whether ids are written as whole numbers; None looks at those of the file.

    Raises:
        DataError: rows that the ensemble cannot read, when they are reached.
    """
    rows = 0
    for piece in _pieces(shard, reader, id_column, whole):
        beside = {"shard": np.full(len(piece), shard.name)} if named else {}
        rows += len(piece)
        yield beside | columns_of(reader.ensemble, piece.x, piece.row)
        tell(rows)


def _shards(source: Path, schema: InputSchema) -> list[Path]:
    """The files of tables or arrays in a folder, or those that match a pattern; a folder of images is one."""
    is_images = source.is_dir() and not any(f.suffix.lower() in TABLES for f in source.iterdir())
    if is_images and schema.kind == "image":
        return [source]
    return find_shards(str(source), Path())


def _whole_ids(shards: Sequence[Path], reader: Reader, id_column: str | None) -> bool | None:
    """Whether the ids of all files are whole numbers, so that they are one column; None without ids."""
    if id_column is None:
        return None
    return whole_ids_of(shards, id_column, separator=_separator(reader.job), schema=reader.ensemble.schema)


def _pieces(shard: Path, reader: Reader, id_column: str | None, whole: bool | None) -> Iterator[Dataset]:
    source = reader.job.data.source
    return stream_inputs(
        shard,
        reader.ensemble.schema,
        id_column=id_column,
        separator=_separator(reader.job),
        resize=isinstance(source, ImageFolder) and source.size is not None,
        missing=imputes(reader.job),
        whole=whole,
    )


def _separator(job: JobSpec) -> str:
    return job.data.source.separator if isinstance(job.data.source, Csv) else ","


def columns_of(ensemble: Ensemble, x: Array, row: Array) -> dict[str, Array]:
    """The ensemble's prediction of the rows as a table; of several tasks ``<task>`` and ``<task>_…`` of each."""
    found = ensemble.predict(x)
    if not found.tasks:
        return as_columns(ensemble.schema, found, row)
    columns: dict[str, Array] = {"row": row}
    for task, prediction in found.tasks.items():
        own = as_columns(ensemble.schema.part(task), prediction, row)
        if not dict(ensemble.schema.tasks)[task]:
            columns |= own
            continue
        columns[task] = own["prediction"]
        columns |= {
            f"{task}_{name}": value for name, value in own.items() if name not in ("row", "prediction")
        }
    return columns


def as_columns(schema: InputSchema, prediction: Prediction, row: Array) -> dict[str, Array]:
    """A prediction as a table: ``row``, the answer, its parts, its uncertainties."""
    columns: dict[str, Array] = {"row": row}
    if schema.classes:
        names = np.asarray(schema.classes)
        columns["prediction"] = names[prediction.mean.argmax(1)]
        columns |= {f"p_{name}": prediction.mean[:, i] for i, name in enumerate(schema.classes)}
        if "inside" in prediction.region:
            columns["set"] = np.array(["|".join(names[row].tolist()) for row in prediction.region["inside"]])
        return columns | dict(prediction.uncertainty)
    for t, target in enumerate(schema.targets):
        columns[target] = prediction.mean[:, t]
        parts = {**prediction.uncertainty, **prediction.region}
        columns |= {f"{target}_{name}": value[:, t] for name, value in parts.items()}
    return columns
