"""The estimators keep scikit-learn's own rules, and predict as the runs that they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from ensemble_svc.predictor import Ensemble
from ensemble_svc.sklearn import EnsembleClassifier, EnsembleRegressor

QUICK = {"members": 2, "hidden": (32,), "epochs": 60, "lr": 0.02, "random_state": 0}


@parametrize_with_checks([EnsembleClassifier(**QUICK), EnsembleRegressor(**QUICK)])
def test_it_is_an_estimator(estimator, check) -> None:
    check(estimator)


def test_probabilities_are_those_of_the_run_that_is_kept(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = EnsembleClassifier(**QUICK, storage=str(tmp_path)).fit(x, names)
    said = model.predict_proba(x)
    assert said == pytest.approx(Ensemble.load(tmp_path / "run").predict(x.astype(np.float32)).mean)
    assert said.sum(1) == pytest.approx(1, abs=1e-5)
    assert model.score(x, names) > 0.9


def test_the_regressor_says_how_sure_it_is() -> None:
    x, y = load_diabetes(return_X_y=True)
    model = EnsembleRegressor(**QUICK | {"epochs": 20}).fit(x, y)
    mean, std = model.predict(x, return_std=True)
    assert std.min() > 0
    inside = np.abs(y - mean) < 2 * std
    assert inside.mean() > 0.8
    assert model.score(x, y) > 0.3


def test_it_works_where_estimators_work() -> None:
    x, y = load_iris(return_X_y=True)
    quick = EnsembleClassifier(**QUICK | {"epochs": 10})
    assert clone(quick).get_params() == quick.get_params()
    assert cross_val_score(make_pipeline(MinMaxScaler(), quick), x, y, cv=2).mean() > 0.7
    search = GridSearchCV(quick, {"lr": [1e-6, 0.02]}, cv=2).fit(x, y)
    assert search.best_params_ == {"lr": 0.02}


def test_keys_of_a_job_file_can_be_given() -> None:
    x, y = load_iris(return_X_y=True)
    job = {
        "aggregate": {"calibrate": "temperature"},
        "data": {"validation": 0.3},
        "training": {"optimizer": "sgd"},
    }
    model = EnsembleClassifier(**QUICK, job=job).fit(x, y)
    assert model.ensemble_.decision.calibrator is not None
    with pytest.raises(ValueError, match="training.epochz"):
        EnsembleClassifier(**QUICK, job={"training": {"epochz": 3}}).fit(x, y)
