"""What an input must look like for the ensemble to read it."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ensemble_svc.data.dataset import Dataset, InputSchema
from ensemble_svc.data.split import Split
from ensemble_svc.spec.data import DataSpec
from ensemble_svc.spec.preprocess import Impute


def describe(dataset: Dataset, split: Split, spec: DataSpec) -> InputSchema:
    """The schema of a data set's rows; only training rows say which columns have missing values.

    Columns with missing values are named only where a step imputes them.
    """
    dtype: Literal["float32", "uint8"] = "uint8" if dataset.x.dtype == np.uint8 else "float32"
    indicators: tuple[int, ...] = ()
    if any(isinstance(step, Impute) for step in spec.preprocess):
        numeric = dataset.x[:, : dataset.x.shape[1] - len(dataset.categories)]
        missing = np.isnan(numeric[split.train]).any(axis=0)
        indicators = tuple(np.flatnonzero(missing).tolist())
    return InputSchema(
        kind=dataset.kind,
        shape=tuple(dataset.x.shape[1:]),
        dtype=dtype,
        features=dataset.features,
        categories=tuple(dataset.categories.items()),
        indicators=indicators,
        classes=dataset.classes,
        targets=dataset.targets,
    )
