"""Targets as a task needs them: class numbers, or float32 numbers.

Shapes: N rows, T targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ensemble_svc.data.dataset import Array
from ensemble_svc.errors import DataError

MOST_CLASSES = 100_000
"""Class numbers above it are taken for something else than class numbers."""

Place = Callable[[int], str]
"""From a row's position to words for it."""


def class_numbers(
    y: Array, names: Sequence[str] | None, *, where: str, place: Place
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Class numbers [N] and the classes' names.

    Text becomes classes in alphabetical order (or in that of ``names``). Numbers are class numbers
    0 … C-1; without ``names`` the largest of them says how many classes there are.

    Args:
        y: [N] or [N, 1] of text, integers, booleans, or floats that are whole numbers.
        where: the array or column, for messages.

    Raises:
        DataError: naming the first row whose label is missing, not whole or out of range.
    """
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1:
        raise DataError(f"{where} has shape {y.shape}; labels are one class number or name for each row.")
    if y.dtype.kind in "US":
        return _from_text(y.astype(str), names, where=where, place=place)
    if y.dtype.kind not in "buif":
        raise DataError(f"{where} holds {y.dtype}; labels are integers or text.")
    return _from_numbers(y, names, where=where, place=place)


def _from_text(
    y: npt.NDArray[np.str_], names: Sequence[str] | None, *, where: str, place: Place
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    values, codes = np.unique(y, return_inverse=True)
    if names is None:
        return codes.astype(np.int64), tuple(values.tolist())
    number = {name: i for i, name in enumerate(names)}
    known = np.array([number.get(value, -1) for value in values.tolist()], dtype=np.int64)
    numbers = known[codes]
    if (numbers < 0).any():
        i = int(np.argmax(numbers < 0))
        raise DataError(f"{place(i)}, {where}: {y[i].item()!r} is no class; allowed: {shown(names)}.")
    return numbers, tuple(names)


def _from_numbers(
    y: Array, names: Sequence[str] | None, *, where: str, place: Place
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    values = y.astype(np.float64)
    highest = (MOST_CLASSES if names is None else len(names)) - 1
    wrong = ~((values >= 0) & (values <= highest) & (values == np.floor(values)))
    if wrong.any():
        i = int(np.argmax(wrong))
        allowed = f"0 to {highest} ({shown(names)})" if names else "0, 1, … up to the number of classes - 1"
        raise DataError(
            f"{place(i)}, {where}: label {y[i].item()!r}; labels are class numbers, {allowed}. "
            "Mend the row, or use 'task: regression' for a number."
        )
    numbers = values.astype(np.int64)
    return numbers, tuple(names or map(str, range(int(numbers.max(initial=-1)) + 1)))


def numbers(y: Array, *, where: str) -> npt.NDArray[np.float32]:
    """Regression targets, [N, T] float32.

    Raises:
        DataError: text, or more than two axes.
    """
    if y.dtype.kind not in "buif":
        raise DataError(f"{where} holds {_kind(y)}; a regression's targets are numbers.")
    if y.ndim not in (1, 2) or 0 in y.shape[1:]:
        raise DataError(f"{where} has shape {y.shape}; targets are [rows] or [rows, targets].")
    return to_float32(y.reshape(len(y), -1), where=where)


def to_float32(values: Array, *, where: str) -> npt.NDArray[np.float32]:
    """The same numbers in 32 bits.

    Raises:
        DataError: a finite number beyond 3.4e38, which 32 bits cannot hold.
    """
    if values.dtype == np.float32:
        return np.ascontiguousarray(values, dtype=np.float32)
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    if values.dtype.kind == "f" and values.dtype.itemsize > 4:
        lost = np.isinf(narrow) & ~np.isinf(values)
        if lost.any():
            at = np.unravel_index(int(np.argmax(lost)), lost.shape)
            raise DataError(
                f"row {at[0] + 1}, {where}: {values[at].item()!r} is too large for 32-bit numbers; "
                "rescale it."
            )
    return narrow


def shown(names: Sequence[str], most: int = 12) -> str:
    """The names, cut short when there are many."""
    rest = f", … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _kind(y: Array) -> str:
    return "text" if y.dtype.kind in "US" else str(y.dtype)
