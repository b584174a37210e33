"""The ``npz`` source: one pair of arrays, or a pair for each named split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ensemble_svc.data.archive import array_names, read_array
from ensemble_svc.data.arrays import Arrays, assemble, channels_first, concatenate
from ensemble_svc.data.dataset import Array, Dataset
from ensemble_svc.data.paths import find_file
from ensemble_svc.data.several import Kinds, joined
from ensemble_svc.errors import DataError, did_you_mean
from ensemble_svc.spec.data import Npz
from ensemble_svc.spec.job import Task

SYNONYMS = {"val": "validation", "valid": "validation", "dev": "validation"}
"""Other names of a named split."""


def npz_tasks(source: Npz, kinds: Kinds, *, directory: Path) -> Dataset:
    """The same with an array of targets for each task, named after it (``<task>``, or ``<task>_train`` and so on).

    ``<task>_names`` are a task's classes when present.

    Raises:
        DataError: as ``load_npz``; no array of a task.
    """

    def one(name: str, kind: Task) -> Dataset:
        own = source.model_copy(update={"y": name})
        found = load_npz(own, task=kind, directory=directory, class_names=f"{name}_names")
        return replace(
            found, targets=(name,) if found.y.ndim == 1 or found.y.shape[1] == 1 else found.targets
        )

    return joined(kinds, one, origin=source.path)


def load_npz(source: Npz, *, task: Task, directory: Path, class_names: str = "class_names") -> Dataset:
    """Rows of all pairs, one split after the other in the file's order.

    Args:
        class_names: the array that holds the classes' names, where there is one.

    Raises:
        DataError: no such arrays, or arrays that do not fit together.
    """
    path = find_file(source.path, directory)
    names = array_names(path)
    pairs = _pairs(source, names, path)
    xs = [_ordered(read_array(path, x), source, f"{path}: {x}") for _, x, _ in pairs]
    ys = [read_array(path, y) for _, _, y in pairs]
    for (_, x_name, y_name), x, y in zip(pairs, xs, ys, strict=True):
        if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
            raise DataError(
                f"{path}: '{x_name}' has shape {x.shape}, '{y_name}' has shape {y.shape}; "
                "they must have as many rows."
            )
    starts = np.cumsum([0] + [len(x) for x in xs])
    splits = {
        split: np.arange(start, end)
        for (split, _, _), start, end in zip(pairs, starts[:-1], starts[1:], strict=True)
        if split
    }
    raw = Arrays(
        x=concatenate(xs, names=[x for _, x, _ in pairs], origin=str(path)),
        y=concatenate(ys, names=[y for _, _, y in pairs], origin=str(path)),
        origin=str(path),
        classes=_names(path, names, class_names),
        features=_names(path, names, "feature_names"),
        splits=splits,
        layout="NCHW",
    )
    return assemble(raw, task=task)


def _ordered(x: Array, source: Npz, origin: str) -> Array:
    """Images with their channels first, while they are still views that cost nothing."""
    return channels_first(x, layout=source.layout, origin=origin) if x.ndim in (3, 4) else x


def _pairs(source: Npz, names: tuple[str, ...], path: Path) -> list[tuple[str, str, str]]:
    """(split, name of x, name of y) of each pair; the split of a lone pair is the empty string."""
    folded = {name.lower(): name for name in names}
    x, y = source.x.lower(), source.y.lower()
    if x in folded and y in folded:
        return [("", folded[x], folded[y])]
    pairs = []
    for name in folded:
        if name.startswith(f"{x}_"):
            suffix = name.removeprefix(f"{x}_")
            partner = f"{y}_{suffix}"
            if partner not in folded:
                raise _missing(partner, names, path)
            pairs.append((SYNONYMS.get(suffix, suffix), folded[name], folded[partner]))
    if not pairs:
        raise _missing(y if x in folded else x, names, path)
    return pairs


def _missing(name: str, names: tuple[str, ...], path: Path) -> DataError:
    return DataError(
        f"{path}: there is no array '{name}'.{did_you_mean(name, names)} It holds: {', '.join(names)}. "
        "Name the arrays with data.source.x and data.source.y (or their prefix before _train, _test)."
    )


def pairs_in(path: Path, source: Npz) -> list[tuple[str, str, str]]:
    """(split, name of x, name of y) of each pair in the file.

    Raises:
        DataError: no such arrays.
    """
    return _pairs(source, array_names(path), path)


def names_in(path: Path, wanted: str) -> tuple[str, ...] | None:
    """The list of names that the file holds under that name, where it does.

    Raises:
        DataError: it is no list of names.
    """
    return _names(path, array_names(path), wanted)


def _names(path: Path, names: tuple[str, ...], wanted: str) -> tuple[str, ...] | None:
    if wanted not in names:
        return None
    array: Array = read_array(path, wanted)
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise DataError(
            f"{path}: '{wanted}' has shape {array.shape} of {array.dtype}; it is a list of names."
        )
    return tuple(array.astype(str).tolist())
