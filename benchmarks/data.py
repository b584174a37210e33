"""The rows of a work, standardised and in memory as tensors, the same for every contender.

Shapes: N rows.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.work import Work

TEST_ROWS = {"digits": 360, "digits_images": 360, "fashion_mnist": 1000}
FOLDER = "ENSEMBLE_DATA"
"""Variable that names the folder with the files that do not ship with scikit-learn."""


class MissingData(Exception):
    """A file that this work needs is not there; the message says which."""


@dataclass(frozen=True)
class Rows:
    """Training and test rows; ``x`` float32, ``y`` int64."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.x.shape[1:])

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.y.max()) + 1


def load(work: Work) -> Rows:
    """The rows of a work.

    Raises:
        MissingData: the folder or the file is not there.
    """
    if work.data == "fashion_mnist":
        x, y, x_test, y_test = _fashion_mnist()
    else:
        x, y, x_test, y_test = _digits(as_images=work.data == "digits_images")
    keep = slice(work.rows)
    return _tensors(x[keep], y[keep], x_test, y_test)


def check(work: Work) -> None:
    """Refuse a work whose file is missing.

    Raises:
        MissingData: it is.
    """
    if work.data == "fashion_mnist":
        fashion_mnist_file()


def data_folder() -> Path:
    """The folder with the data that do not ship with scikit-learn.

    Raises:
        MissingData: the variable that names it is not set.
    """
    folder = os.environ.get(FOLDER)
    if folder is None:
        raise MissingData(f"{FOLDER} is not set; it names the folder with fashion_mnist.npz and uci/")
    return Path(folder).expanduser()


def fashion_mnist_file() -> Path:
    """The file with Fashion-MNIST.

    Raises:
        MissingData: it is not there.
    """
    path = data_folder() / "fashion_mnist.npz"
    if not path.is_file():
        raise MissingData(f"the folder that {FOLDER} names holds no fashion_mnist.npz")
    return path


Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _digits(*, as_images: bool) -> Arrays:
    """scikit-learn's digits, 1,437 rows to train and 360 to test; pixels standardised on the former."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x, y, test_size=TEST_ROWS["digits"], stratify=y, random_state=0)
    mean, scale = x.mean(0), x.std(0)
    scale[scale == 0] = 1
    x, x_test = (x - mean) / scale, (x_test - mean) / scale
    if as_images:
        x, x_test = (part.reshape(-1, 1, 8, 8).repeat(2, axis=2).repeat(2, axis=3) for part in (x, x_test))
    return x, y, x_test, y_test


def _fashion_mnist() -> Arrays:
    """The file's first rows as [N, 1, 28, 28], centred and scaled by all pixels of the training images."""
    with np.load(fashion_mnist_file()) as file:
        x, y = file["X_train"], file["y_train"]
        x_test, y_test = (file[name][: TEST_ROWS["fashion_mnist"]] for name in ("X_test", "y_test"))
    mean, scale = x.mean(dtype=np.float64), x.std(dtype=np.float64)
    x, x_test = ((part[:, None] - mean) / scale for part in (x.astype(np.float32), x_test.astype(np.float32)))
    return x, y, x_test, y_test


def _tensors(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> Rows:
    def inputs(part: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32))

    def targets(part: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(part, dtype=np.int64))

    return Rows(inputs(x), targets(y), inputs(x_test), targets(y_test))
