"""Ensembles as scikit-learn estimators: ``fit``, ``predict``, ``predict_proba`` on arrays, in this process.

    from ensemble_svc.sklearn import EnsembleClassifier

    EnsembleClassifier(members=16).fit(x, y).predict_proba(x_new)

Members are trained as by a job with ``executor: local``; the run's folder is kept where ``storage`` says, else let go
once its ensemble is loaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data

from ensemble_svc.errors import EnsembleSvcError
from ensemble_svc.local import LocalExecutor
from ensemble_svc.pipeline import train
from ensemble_svc.predictor import Ensemble, Prediction
from ensemble_svc.spec.load import parse_job

Numbers = npt.NDArray[Any]
LARGEST_SEED = 2**31 - 1
BLOCK = 256
"""Rows predicted at a time, so that a row's bits do not depend on how many others are asked for with it."""


class _Ensemble(BaseEstimator):  # type: ignore[misc]
    """What both estimators share."""

    _task: str

    def __init__(
        self,
        *,
        members: int = 8,
        hidden: tuple[int, ...] = (64, 64),
        epochs: int = 60,
        batch_size: int = 32,
        lr: float = 0.003,
        resample: str = "none",
        job: Mapping[str, Any] | None = None,
        storage: str | None = None,
        random_state: Any = None,
    ) -> None:
        self.members = members
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.resample = resample
        self.job = job
        self.storage = storage
        self.random_state = random_state

    def _fit(self, x: Numbers, y: Numbers) -> Self:
        if len(x) < 2:
            raise ValueError("n_samples = 1: one sample is too few to train on.")
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(LARGEST_SEED)
        with _told_as_value_error(), tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "rows.npz"
            np.savez(source, x=x.astype(np.float32), y=y)
            job = parse_job(self._job(source, int(seed)))
            out = Path(self.storage or folder) / "run"
            train(job, out=out, directory=Path(folder), executor=LocalExecutor(retries=0))
            self.ensemble_ = Ensemble.load(out)
        return self

    def _job(self, source: Path, seed: int) -> dict[str, Any]:
        """The job, with the user's own keys in place of ours."""
        own: dict[str, Any] = {
            "name": "estimator",
            "seed": seed,
            "task": self._task,
            "data": {
                "source": {"name": "npz", "path": str(source)},
                "preprocess": ["standardize"],
                "validation": 0.0,
                "test": 0.0,
            },
            "model": {"name": "mlp", "hidden": list(self.hidden)},
            "training": {
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "optimizer": {"name": "adamw", "lr": self.lr},
            },
            "ensemble": {"members": self.members, "resample": self.resample},
            "compute": {"executor": "local", "measure": "off", "commit_every_s": 3600.0},
        }
        return _merged(own, self.job or {})

    def _say(self, x: Any) -> Prediction:
        check_is_fitted(self)
        rows = validate_data(self, x, reset=False, dtype=np.float64)
        return _in_blocks(self.ensemble_, rows.astype(np.float32))


class EnsembleClassifier(ClassifierMixin, _Ensemble):  # type: ignore[misc]
    """An ensemble of networks that tells classes apart.

    Args:
        members: networks in the ensemble.
        hidden: units of each hidden layer.
        epochs: passes over the rows.
        batch_size: rows of a step.
        lr: learning rate of AdamW.
        resample: rows that each member sees: ``none``, ``bootstrap``, …
        job: further keys of a job file, in place of the above: ``{"aggregate": {"calibrate": "temperature"},
            "data": {"validation": 0.2}}``.
        storage: a folder in which the run is kept.
        random_state: seed of every draw.
    """

    _task = "classification"

    def fit(self, X: Any, y: Any) -> Self:
        """Train on rows [n, D] and their classes [n].

        Raises:
            ValueError: data that cannot be trained on, or options that no job allows.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class, {self.classes_[0]!r}; a classifier needs two or more.")
        return self._fit(X, codes.astype(np.int64))

    def predict_proba(self, X: Any) -> Numbers:
        """Class probabilities [n, C], in the order of ``classes_``."""
        return np.asarray(self._say(X).mean)

    def predict(self, X: Any) -> Numbers:
        """The most probable class of each row."""
        best = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[best])


class EnsembleRegressor(RegressorMixin, _Ensemble):  # type: ignore[misc]
    """An ensemble of networks that predicts a number and how sure it is; arguments as ``EnsembleClassifier``."""

    _task = "regression"

    def fit(self, X: Any, y: Any) -> Self:
        """Train on rows [n, D] and their targets [n].

        Raises:
            ValueError: data that cannot be trained on, or options that no job allows.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        return self._fit(X, np.asarray(y, dtype=np.float64))

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The mean of each row, and the standard deviation of the mixture if it is asked for."""
        said = self._say(X)
        mean = np.asarray(said.mean[:, 0], dtype=np.float64)
        return (mean, np.sqrt(said.uncertainty["total"][:, 0])) if return_std else mean


def _in_blocks(ensemble: Ensemble, rows: Numbers) -> Prediction:
    """The prediction of rows, each in a block of one size."""
    padded = np.concatenate([rows, np.zeros((-len(rows) % BLOCK, *rows.shape[1:]), rows.dtype)])
    blocks = [ensemble.predict(padded[start : start + BLOCK]) for start in range(0, len(padded), BLOCK)]
    mean = np.concatenate([block.mean for block in blocks])[: len(rows)]
    doubts = blocks[0].uncertainty
    doubt = {n: np.concatenate([block.uncertainty[n] for block in blocks])[: len(rows)] for n in doubts}
    return Prediction(mean, doubt)


def _merged(own: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings key by key; a choice that is given by another name replaces ours."""
    merged = dict(own)
    for key, value in given.items():
        mine = merged.get(key)
        both = isinstance(mine, dict) and isinstance(value, Mapping)
        same = both and value.get("name", mine.get("name")) == mine.get("name")  # type: ignore[union-attr]
        merged[key] = _merged(mine, value) if same else value  # type: ignore[arg-type]
    return merged


@contextmanager
def _told_as_value_error():  # type: ignore[no-untyped-def]
    try:
        yield
    except EnsembleSvcError as fault:
        raise ValueError(str(fault)) from fault
