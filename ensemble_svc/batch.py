"""A finished ensemble on new data: batch evaluation and batch prediction.

Shapes: N rows, C classes, T targets.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
import torch

from ensemble_svc.data.dataset import Array, Dataset, InputSchema
from ensemble_svc.data.inputs import conform, read_inputs
from ensemble_svc.data.sources import load, load_several
from ensemble_svc.deciding import best_on_validation, measure
from ensemble_svc.errors import DataError
from ensemble_svc.predictor import Ensemble, Prediction
from ensemble_svc.spec.data import Csv, ImageFolder, Source, Table
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import parse_source
from ensemble_svc.spec.preprocess import Impute
from ensemble_svc.spec.tasks import kinds
from ensemble_svc.store.atomic import write_atomic
from ensemble_svc.store.run import Run

FORMATS = (".parquet", ".csv", ".npz")


def evaluate_source(run: Run, source: str, directory: Path) -> dict[str, Any]:
    """Measure the ensemble of ``run`` on every row of a labelled source.

    Args:
        source: a data source as a job would name it, a name or a YAML mapping.

    Raises:
        SpecError: a source that no job could name.
        DataError: rows that the ensemble cannot read.
    """
    job, manifest = run.job(), run.manifest()
    ensemble = Ensemble.load(run.path)
    asked = parse_source(source)
    if isinstance(asked, Table):
        known = [name for name, _ in ensemble.schema.categories]
        asked = asked.model_copy(update={"categorical": tuple(dict.fromkeys([*asked.categorical, *known]))})
    found = _load(asked, job, directory)
    dataset = conform(found, ensemble.schema, missing=_imputes(job))
    members = ensemble.members(dataset.x)
    entries, ids = {e["id"]: e for e in manifest["members"]}, ensemble.decision.members
    best = best_on_validation(job, [entries[member]["metrics"] for member in ids])
    target = torch.from_numpy(np.ascontiguousarray(dataset.y))
    return {"data": measure(job, ensemble.decision, ids, members, target, best=best)}


def _load(source: Source, job: JobSpec, directory: Path) -> Dataset:
    if job.task == "multitask":
        return load_several(source, kinds(job.tasks), directory=directory)
    return load(source, task=job.task, directory=directory)


def predict_file(run: Path, source: Path, output: Path, *, id_column: str | None = None) -> int:
    """Predict every row of ``source`` and write the answer to ``output``; returns the number of rows.

    Raises:
        DataError: an input the ensemble cannot read, or an output format that is not offered.
    """
    if output.suffix not in FORMATS:
        raise DataError(f"{output}: cannot write '{output.suffix}'; use one of {', '.join(FORMATS)}")
    ensemble, job = Ensemble.load(run), Run.open(run).job()
    x, row = read_inputs(
        source,
        ensemble.schema,
        id_column=id_column,
        separator=job.data.source.separator if isinstance(job.data.source, Csv) else ",",
        resize=isinstance(job.data.source, ImageFolder) and job.data.source.size is not None,
        missing=_imputes(job),
    )
    columns = columns_of(ensemble, x, row)
    write_atomic(output, _encode(columns, output.suffix))
    return len(row)


def _imputes(job: JobSpec) -> bool:
    return any(isinstance(step, Impute) for step in job.data.preprocess)


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


def _encode(columns: dict[str, Array], suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == ".npz":
        arrays: dict[str, Any] = {name: _plain(values) for name, values in columns.items()}
        np.savez(buffer, **arrays)
        return buffer.getvalue()
    table = pa.table({name: pa.array(values.tolist()) for name, values in columns.items()})
    if suffix == ".csv":
        pa_csv.write_csv(_harmless(table), buffer)
    else:
        pa_parquet.write_table(table, buffer)
    return buffer.getvalue()


def _plain(values: Array) -> Array:
    return values.astype(str) if values.dtype == object else values


def _harmless(table: pa.Table) -> pa.Table:
    """Text that a spreadsheet would run as a formula gets a quote in front."""

    def quoted(text: str) -> str:
        return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text

    for i, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            cells = [quoted(text) for text in table.column(i).to_pylist()]
            table = table.set_column(i, field.name, pa.array(cells))
    return table.rename_columns([quoted(name) for name in table.column_names])
