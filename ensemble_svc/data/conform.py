"""Labelled data put in the terms of an ensemble that exists: its columns, categories and classes.

Shapes: N rows, D columns.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ensemble_svc.data.checks import check_features, check_targets
from ensemble_svc.data.dataset import Array, Dataset, InputSchema
from ensemble_svc.data.labels import shown
from ensemble_svc.data.place import place_of
from ensemble_svc.data.table import codes
from ensemble_svc.errors import DataError, did_you_mean


def conform(dataset: Dataset, schema: InputSchema, *, missing: bool | None = None) -> Dataset:
    """The same rows, coded as the ensemble's training data were.

    A category that the ensemble does not know becomes -1. Data whose classes are bare numbers are
    matched to named classes by number.

    Args:
        missing: whether missing numbers are allowed, because the ensemble imputes them; None
            says so when its training rows had missing numbers.

    Raises:
        DataError: a missing column, another shape or kind, a class or target that the ensemble
            does not have, a number that is NaN or infinite.
    """
    x, y = _inputs(dataset, schema), _answers(dataset, schema)
    recoded = replace(
        dataset,
        x=x,
        y=y,
        features=schema.features,
        categories=dict(schema.categories),
        classes=schema.classes,
        targets=schema.targets,
        tasks=schema.tasks,
    )
    rows = np.arange(len(recoded))
    check_features(recoded, rows, imputed=bool(schema.indicators) if missing is None else missing)
    for name, classes in schema.tasks:
        if not classes:
            check_targets(recoded.part(name), rows)
    if not schema.classes and not schema.tasks:
        check_targets(recoded, rows)
    return recoded


def conform_inputs(dataset: Dataset, schema: InputSchema, *, missing: bool | None = None) -> Dataset:
    """The same of rows whose targets are none of the ensemble's, and mean nothing.

    Raises:
        DataError: as ``conform``, of the inputs.
    """
    x = _inputs(dataset, schema)
    found = Dataset(x, np.zeros(len(x)), dataset.row, schema.kind, schema.features, dict(schema.categories))
    imputed = bool(schema.indicators) if missing is None else missing
    check_features(found, np.arange(len(x)), imputed=imputed)
    return found


def _inputs(dataset: Dataset, schema: InputSchema) -> Array:
    if dataset.kind != schema.kind:
        raise DataError(f"the data are a set of {dataset.kind}s, the ensemble reads {schema.kind}s.")
    x = _columns(dataset, schema) if schema.kind == "table" else dataset.x
    check_rows(x, schema, origin="the data")
    return x


def check_rows(x: Array, schema: InputSchema, *, origin: str) -> None:
    """Rows have the schema's shape and, for images, its type (0 to 255, or as trained).

    Raises:
        DataError: they do not.
    """
    if x.shape[1:] != schema.shape:
        wanted = " x ".join(map(str, schema.shape))
        raise DataError(
            f"{origin}: rows have shape {x.shape[1:]}; the ensemble reads {wanted}"
            + (" (channels x height x width)." if schema.kind == "image" else " columns.")
        )
    if schema.kind == "image" and x.dtype != np.dtype(schema.dtype):
        raise DataError(
            f"{origin}: images are {x.dtype}; the ensemble was trained on {schema.dtype}. "
            "Bring them to the same range and type."
        )


def _columns(dataset: Dataset, schema: InputSchema) -> npt.NDArray[np.float32]:
    for name in schema.features:
        if name not in dataset.features:
            raise DataError(
                f"the ensemble's input names column '{name}', which the data do not have."
                f"{did_you_mean(name, dataset.features)} Columns: {shown(dataset.features)}."
            )
    known = dict(schema.categories)
    columns = [
        codes(_words(dataset, name), known[name])[0] if name in known else _numbers(dataset, name)
        for name in schema.features
    ]
    return np.column_stack(columns).astype(np.float32)


def _words(dataset: Dataset, name: str) -> list[str | None]:
    """The column's values as the words they were read from."""
    column = dataset.x[:, dataset.features.index(name)].tolist()
    values = dataset.categories.get(name)
    if values is not None:
        return [None if np.isnan(code) else values[int(code)] for code in column]
    return [None if np.isnan(v) else str(int(v)) if v == np.floor(v) else str(v) for v in column]


def _numbers(dataset: Dataset, name: str) -> npt.NDArray[np.float32]:
    if name not in dataset.categories:
        return dataset.x[:, dataset.features.index(name)].astype(np.float32)
    numbers = np.empty(len(dataset), dtype=np.float32)
    for i, word in enumerate(_words(dataset, name)):
        try:
            numbers[i] = np.nan if word is None else float(word)
        except ValueError:
            raise DataError(
                f"{place_of(dataset, i)}, column '{name}': {word!r} is no number; "
                "the ensemble reads numbers there."
            ) from None
    return numbers


def _answers(dataset: Dataset, schema: InputSchema) -> Array:
    """The targets in the schema's terms; of several tasks side by side."""
    if not schema.tasks:
        return _classes(dataset, schema) if schema.classes else _targets(dataset, schema)
    each = [_answers(dataset.part(name), schema.part(name)) for name, _ in schema.tasks]
    return np.column_stack([y.astype(np.float32) for y in each])


def _classes(dataset: Dataset, schema: InputSchema) -> npt.NDArray[np.int64]:
    if not dataset.classes:
        raise DataError("the ensemble predicts classes, but the data hold numbers as targets.")
    number = {name: i for i, name in enumerate(schema.classes)}
    bare = dataset.classes == tuple(map(str, range(len(dataset.classes))))
    if bare and not set(dataset.classes) & set(schema.classes):
        number = {str(i): i for i in range(len(schema.classes))}
    mapped = np.array([number.get(name, -1) for name in dataset.classes], dtype=np.int64)
    y = mapped[dataset.y]
    if (y < 0).any():
        i = int(np.argmax(y < 0))
        label = dataset.classes[int(dataset.y[i])]
        raise DataError(
            f"{place_of(dataset, i)}: class '{label}' is not one of the ensemble's: {shown(schema.classes)}."
        )
    return y


def _targets(dataset: Dataset, schema: InputSchema) -> npt.NDArray[np.float32]:
    if dataset.classes:
        raise DataError("the ensemble predicts numbers, but the data hold classes as targets.")
    if set(dataset.targets) == set(schema.targets):
        order = [dataset.targets.index(name) for name in schema.targets]
        return dataset.y[:, order].astype(np.float32)
    if len(dataset.targets) != len(schema.targets):
        raise DataError(
            f"the data have the targets {shown(dataset.targets)}; "
            f"the ensemble predicts {shown(schema.targets)}."
        )
    return dataset.y.astype(np.float32)
