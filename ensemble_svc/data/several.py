"""The sources of several tasks: the same rows with a target for each, of its own kind.

Shapes: N rows, T tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ensemble_svc.data.dataset import Dataset
from ensemble_svc.errors import DataError
from ensemble_svc.spec.tasks import Task

Kinds = Mapping[str, Task]
"""The kind of each task, by the name of its target."""


def joined(kinds: Kinds, load: Callable[[str, Task], Dataset], *, origin: str | Path) -> Dataset:
    """The rows of a source with the targets of all tasks side by side, class numbers among them, as float32.

    Args:
        load: the rows with the target of one task.

    Raises:
        DataError: as ``load``; a task whose target has several columns, or a class alone.
    """
    each = {name: load(name, kind) for name, kind in kinds.items()}
    for name, one in each.items():
        if one.y.ndim == 2 and one.y.shape[1] != 1:
            raise DataError(
                f"{origin}: the target '{name}' has {one.y.shape[1]} columns; a task has one. Name each a task."
            )
        if one.classes and len(one.classes) < 2:
            raise DataError(f"{origin}: task '{name}': all rows are of class '{one.classes[0]}'.")
    y_NT = np.column_stack([one.y.astype(np.float32) for one in each.values()])
    tasks = tuple((name, one.classes) for name, one in each.items())
    return replace(next(iter(each.values())), y=y_NT, classes=(), targets=tuple(each), tasks=tasks)
