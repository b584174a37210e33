"""A labelled data set in memory, and what a network must know of it.

Shapes: N rows, D columns, T targets, images [N, C, H, W].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Literal

import numpy as np
import numpy.typing as npt

from ensemble_svc.registry import Spec

Array = npt.NDArray[np.generic]
Kind = Literal["table", "image"]


@dataclass(frozen=True)
class Lesson:
    """What a teacher says of the rows that train, which a student learns in place of their targets."""

    says: Array
    """[N, C] probabilities at the temperature, or [N, 2T] means and then variances in the targets' units; float32,
    NaN for rows that do not train."""
    temperature: float
    """What the teacher's log probabilities were divided by, as the student's are; 1 for numbers."""
    teacher: str
    """Who teaches, from which data: the lesson's identity."""

    def take(self, rows: Array) -> Lesson:
        """Of some rows, by position."""
        return replace(self, says=self.says[rows])


@dataclass(frozen=True)
class Dataset:
    """Rows with targets; nothing in it has been fitted on anything."""

    x: Array
    """[N, D] float32 for tables (categorical columns last, as codes; missing is NaN), or
    [N, C, H, W] uint8 or float32 for images."""
    y: Array
    """[N] int64 class numbers, or [N, T] float32 numbers (of several tasks, class numbers among them)."""
    row: Array
    """[N] identity of each row, integers or strings."""
    kind: Kind
    features: tuple[str, ...] = ()
    """Column names of a table, in the order of ``x``."""
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Values of each categorical column, in the order of their codes (0, 1, …)."""
    classes: tuple[str, ...] = ()
    """Class names; empty for regression."""
    targets: tuple[str, ...] = ()
    """Target names; one for classification."""
    splits: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    """The source's own named splits, as row positions."""
    columns: Mapping[str, Array] = field(default_factory=dict)
    """[N] columns that are not features, by name."""
    tasks: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Of several tasks, each one's name and classes, none for numbers; in the order of the targets."""
    lesson: Lesson | None = None
    """Of a teacher; scores and reports are by the targets all the same."""

    def __len__(self) -> int:
        return len(self.x)

    @property
    def are_numbers(self) -> npt.NDArray[np.bool_]:
        """Which of the targets [T] are numbers, and not the classes of a task."""
        return np.array([not classes for _, classes in self.tasks] or [True] * self.y.shape[1])

    def part(self, task: str) -> Dataset:
        """The same rows with one of the tasks alone."""
        column = self.targets.index(task)
        classes = dict(self.tasks)[task]
        y = self.y[:, column].astype(np.int64) if classes else self.y[:, column : column + 1]
        return replace(self, y=y, classes=classes, targets=(task,), tasks=())

    @property
    def labelled(self) -> Dataset | None:
        """The same rows with the classes by which they are told apart: of several tasks the first that has any."""
        if not self.tasks:
            return self if self.classes else None
        return next((self.part(name) for name, classes in self.tasks if classes), None)

    @cached_property
    def black(self) -> float:
        """The smallest pixel, at most 0."""
        return 0.0 if self.x.dtype == np.uint8 else float(self.x.min(initial=0))

    @cached_property
    def white(self) -> float:
        """What a white pixel is: 255 in bytes; in numbers 1, or the largest pixel where that is more."""
        if self.x.dtype == np.uint8:
            return 255.0
        return max(float(self.x.max(initial=0)), 1.0)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over values, types and names: the identity of the data, wherever it lies."""
        digest = sha256()
        for array in (self.x, self.y):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        names = (self.features, sorted(self.categories.items()), self.classes, self.targets)
        digest.update(repr(names if not self.tasks else (*names, self.tasks)).encode())
        if self.lesson is not None:
            digest.update(f"{self.lesson.temperature}{self.lesson.teacher}".encode())
        return digest.hexdigest()


class InputSchema(Spec):
    """What an input must look like for a trained member to read it; kept with the ensemble."""

    kind: Kind
    shape: tuple[int, ...]
    """Shape of one raw row, [D] or [C, H, W]."""
    dtype: Literal["float32", "uint8"]
    features: tuple[str, ...] = ()
    categories: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Categorical columns (the last of a row), each with its known values in code order."""
    indicators: tuple[int, ...] = ()
    """Numeric columns that have missing values in the training split."""
    classes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    tasks: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Of several tasks, each one's name and classes, none for numbers; in the order of the targets."""

    def part(self, task: str) -> InputSchema:
        """The same with one of the tasks alone."""
        return self.model_copy(update={"classes": dict(self.tasks)[task], "targets": (task,), "tasks": ()})

    @property
    def num_numeric(self) -> int:
        """Columns of a table that hold numbers."""
        return self.shape[0] - len(self.categories)
