"""The ``python`` source: the user's own function, imported from the job's working directory."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import numpy as np

from ensemble_svc.data.arrays import Arrays, assemble
from ensemble_svc.data.dataset import Array, Dataset
from ensemble_svc.data.rows import row_positions
from ensemble_svc.data.several import Kinds, joined
from ensemble_svc.errors import DataError, did_you_mean
from ensemble_svc.spec.data import PythonSource
from ensemble_svc.spec.job import Task

KEYS = ("x", "y", "classes", "features", "row", "splits")


def load_python(source: PythonSource, *, task: Task, directory: Path) -> Dataset:
    """What ``factory(**options)`` returned. An error inside the function keeps its traceback.

    Raises:
        DataError: no such function, options it does not take, or a result that is not the dict
            of arrays that is asked for.
    """
    return _dataset(*_made(source, directory), task=task)


def python_tasks(source: PythonSource, kinds: Kinds, *, directory: Path) -> Dataset:
    """The same for a function whose ``y`` (and ``classes``, where given) is a dict with an entry for each task.

    Raises:
        DataError: as ``load_python``; a ``y`` that is no dict, or lacks a task.
    """
    made, origin = _made(source, directory)
    for key in ("y", "classes"):
        if made.get(key) is not None and not isinstance(made[key], Mapping):
            raise DataError(
                f"{origin}: '{key}' must be a dict with an entry for each task ({', '.join(kinds)})."
            )
    targets = {str(name): values for name, values in made["y"].items()}
    for name in kinds:
        if name not in targets:
            raise DataError(
                f"{origin}: 'y' has no task '{name}'.{did_you_mean(name, targets)} It has: {', '.join(targets)}."
            )
    for name in targets:
        if name not in kinds:
            raise DataError(
                f"{origin}: 'y' has '{name}', which is no task; add tasks.{name}, or leave it out."
            )
    classes = made.get("classes") or {}

    def one(name: str, kind: Task) -> Dataset:
        own = {**made, "y": targets[name], "classes": classes.get(name)}
        return _dataset(own, origin, task=kind, targets=(name,))

    return joined(kinds, one, origin=origin)


def _made(source: PythonSource, directory: Path) -> tuple[Mapping[str, Any], str]:
    """What the function returned, and words for where it comes from."""
    factory = import_factory(source.factory, directory)
    try:
        inspect.signature(factory).bind(**source.options)
    except TypeError as fault:
        raise DataError(f"data.source.options do not fit {source.factory}: {fault}.") from fault
    made = factory(**source.options)
    origin = f"data.source {source.factory}"
    if not isinstance(made, Mapping):
        raise DataError(f"{origin} returned {type(made).__name__}; it must return a dict with 'x' and 'y'.")
    for key in made:
        if key not in KEYS:
            hint = did_you_mean(str(key), KEYS)
            raise DataError(f"{origin} returned the key '{key}'.{hint} Allowed: {', '.join(KEYS)}.")
    for key in ("x", "y"):
        if key not in made:
            raise DataError(f"{origin} returned no '{key}'; it returned: {', '.join(map(str, made))}.")
    return made, origin


def _dataset(
    made: Mapping[str, Any], origin: str, *, task: Task, targets: tuple[str, ...] | None = None
) -> Dataset:
    x = _array(made["x"], "x", origin)
    raw = Arrays(
        x=x,
        y=_array(made["y"], "y", origin),
        origin=origin,
        targets=targets,
        classes=_names(made.get("classes"), "classes", origin),
        features=_names(made.get("features"), "features", origin),
        row=None if made.get("row") is None else _array(made["row"], "row", origin),
        splits={
            str(name): row_positions(
                _array(rows, "splits", origin), len(x), where=f"{origin}: split '{name}'"
            )
            for name, rows in (made.get("splits") or {}).items()
        },
    )
    return assemble(raw, task=task)


def import_factory(reference: str, directory: Path) -> Callable[..., Any]:
    """The function called ``module:function``, with ``directory`` first on the import path.

    Raises:
        DataError: no such module, or no such function in it.
    """
    module_name, function = reference.split(":")
    folder = str(directory.resolve())
    if folder not in sys.path[:1]:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    _forget_namesake(module_name.partition(".")[0], folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as fault:
        raise DataError(
            f"data.source.factory '{reference}': no module named '{fault.name}' in {folder} or installed."
        ) from fault
    found = getattr(module, function, None)
    if not callable(found):
        hint = did_you_mean(function, [name for name in vars(module) if not name.startswith("_")])
        raise DataError(
            f"data.source.factory '{reference}': {module.__file__} has no function '{function}'.{hint}"
        )
    return found


def _forget_namesake(package: str, folder: str) -> None:
    """Drops a module of the same name that another job's folder gave this process."""
    here, loaded = PathFinder.find_spec(package, [folder]), sys.modules.get(package)
    if here and here.origin and loaded and getattr(loaded, "__file__", here.origin) != here.origin:
        for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
            del sys.modules[name]


def _array(value: Any, key: str, origin: str) -> Array:
    try:
        array = np.asarray(value)
    except ValueError as fault:
        raise DataError(f"{origin}: '{key}' is not an array: {fault}.") from fault
    if array.dtype.hasobject:
        raise DataError(f"{origin}: '{key}' holds Python objects; it must be an array of numbers or text.")
    return array


def _names(value: Sequence[Any] | None, key: str, origin: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        raise DataError(f"{origin}: '{key}' is the text {value!r}; it must be a list of names.")
    return tuple(map(str, value))
