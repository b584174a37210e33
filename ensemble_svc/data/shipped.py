"""The sets that scikit-learn ships, read from its files without the half second of importing it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ensemble_svc.data.arrays import Arrays, assemble
from ensemble_svc.data.dataset import Dataset
from ensemble_svc.data.labels import shown
from ensemble_svc.data.paths import find_file, reading
from ensemble_svc.data.several import Kinds, joined
from ensemble_svc.errors import DataError, did_you_mean
from ensemble_svc.spec.job import Task

_CELL = (
    "radius", "texture", "perimeter", "area", "smoothness",
    "compactness", "concavity", "concave points", "symmetry", "fractal dimension",
)  # fmt: skip
_CELL_FEATURES = (
    *(f"mean {name}" for name in _CELL),
    *(f"{name} error" for name in _CELL),
    *(f"worst {name}" for name in _CELL),
)


def load_digits(*, task: Task) -> Dataset:
    """1,797 images [1, 8, 8], float32 from 0 to 16."""
    values = _table("digits.csv.gz", separator=",")
    _require("digits", task, "classification")
    names = tuple(map(str, range(10)))
    x, y = values[:, :-1].reshape(-1, 8, 8), values[:, -1]
    return assemble(Arrays(x, y, "digits", classes=names, targets=("digit",)), task=task)


def load_breast_cancer(*, task: Task) -> Dataset:
    """569 rows of 30 features; 212 malignant (class 0), 357 benign."""
    values = _table("breast_cancer.csv", separator=",", skip=1)
    _require("breast_cancer", task, "classification")
    raw = Arrays(
        values[:, :-1],
        values[:, -1],
        "breast_cancer",
        classes=("malignant", "benign"),
        features=_CELL_FEATURES,
        targets=("diagnosis",),
    )
    return assemble(raw, task=task)


def load_diabetes(*, task: Task) -> Dataset:
    """442 rows of 10 features in their own units (scikit-learn's ``scaled=False``)."""
    x = _table("diabetes_data_raw.csv.gz", separator=" ")
    y = _table("diabetes_target.csv.gz", separator=" ")
    _require("diabetes", task, "regression")
    features = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
    raw = Arrays(x, y, "diabetes", features=features, targets=("progression",))
    return assemble(raw, task=task)


def shipped_columns(name: str, kinds: Kinds) -> Dataset:
    """A shipped table with some of its columns as the targets of tasks; those are no features.

    Args:
        name: ``diabetes`` or ``breast_cancer``.

    Raises:
        DataError: a task that names no column, or tasks that leave no feature.
    """
    table = (
        load_diabetes(task="regression") if name == "diabetes" else load_breast_cancer(task="classification")
    )
    own = table.targets[0]
    known = (own, *table.features)
    for task in kinds:
        if task not in known:
            raise DataError(
                f"tasks.{task}: the source '{name}' has no such column.{did_you_mean(task, known)} "
                f"Columns: {shown(known)}."
            )
    features = tuple(feature for feature in table.features if feature not in kinds)
    if not features:
        raise DataError(f"tasks: no feature of '{name}' is left beside their targets.")
    x = table.x[:, [table.features.index(feature) for feature in features]]

    def one(task: str, kind: Task) -> Dataset:
        if task == own:
            classes = table.classes if kind == "classification" else ()
            return assemble(
                Arrays(x, table.y, name, classes=classes or None, features=features, targets=(task,)),
                task=kind,
            )
        column = table.x[:, table.features.index(task)]
        y = np.array([f"{value:g}" for value in column]) if kind == "classification" else column
        return assemble(Arrays(x, y, name, features=features, targets=(task,)), task=kind)

    return joined(kinds, one, origin=name)


def _table(name: str, *, separator: str, skip: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError("scikit-learn, which ships this data, is not installed: pip install scikit-learn.")
    folder = Path(package.submodule_search_locations[0]) / "datasets" / "data"
    path = find_file(name, folder)
    with reading(path, ValueError, EOFError):
        return np.loadtxt(path, delimiter=separator, skiprows=skip)


def _require(source: str, task: Task, right: Task) -> None:
    if task != right:
        raise DataError(f"data.source '{source}' is a {right} set; write 'task: {right}' (got '{task}').")
