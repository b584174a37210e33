"""Data that no honest number could come from are refused in words; odd data are used and said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_svc.data.checks import check
from ensemble_svc.data.dataset import Dataset
from ensemble_svc.data.sources import load, load_data
from ensemble_svc.data.split import make_split
from ensemble_svc.errors import DataError
from ensemble_svc.spec.augment import Crop, Flip
from ensemble_svc.spec.data import Csv, DataSpec, Npz
from ensemble_svc.spec.job import Task
from ensemble_svc.spec.preprocess import Impute, PerChannelCenter, Standardize


def csv(folder: Path, text: str, *, task: Task = "regression", **options: Any) -> Dataset:
    (folder / "t.csv").write_text(text)
    return load(Csv(path="t.csv", **{"target": "y", **options}), task=task, directory=folder)


def npz(folder: Path, *, task: Task = "classification", **arrays: Any) -> Dataset:
    np.savez(folder / "t.npz", **arrays)
    return load(Npz(path="t.npz"), task=task, directory=folder)


def prepared(data: Dataset, *, task: Task, **options: Any) -> tuple[str, ...]:
    spec = DataSpec.model_validate({"source": "digits", **options})
    split = make_split(data, spec, task=task, seed=0)
    return check(data, split, spec, task=task)


def table(num_rows: int = 40, num_columns: int = 3, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_rows, num_columns)).astype(np.float32)
    y = rng.normal(size=(num_rows, 1)).astype(np.float32)
    names = tuple(f"x{i}" for i in range(num_columns))
    return Dataset(x, y, np.arange(num_rows) + 100, "table", names, targets=("y",))


@pytest.mark.parametrize("value, name", [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "-infinity")])
def test_features_that_are_not_finite_are_named(value: float, name: str) -> None:
    data = table()
    data.x[16, 1] = value
    with pytest.raises(DataError, match=rf"row 17 \(id 116\), column 'x1': {name}") as caught:
        prepared(data, task="regression")
    assert ("impute" in str(caught.value)) == np.isnan(value)
    if np.isnan(value):
        assert prepared(data, task="regression", preprocess=(Impute(),)) == ()
    else:
        with pytest.raises(DataError, match="column 'x1'"):
            prepared(data, task="regression", preprocess=(Impute(),))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_targets_that_are_not_finite_are_named(value: float) -> None:
    data = table()
    data.y[16, 0] = value
    with pytest.raises(DataError, match=r"row 17 \(id 116\), target 'y'"):
        prepared(data, task="regression", preprocess=(Impute(),))


def test_a_constant_target_is_refused() -> None:
    data = table()
    data.y[:] = 3
    with pytest.raises(DataError, match="target 'y' is constant: 3 in all"):
        prepared(data, task="regression")


def classes_of(counts: list[int]) -> Dataset:
    y = np.repeat(np.arange(len(counts)), counts)
    x = np.random.default_rng(0).normal(size=(len(y), 2)).astype(np.float32)
    names = tuple(chr(97 + i) for i in range(len(counts)))
    return Dataset(x, y, np.arange(len(y)), "table", ("p", "q"), classes=names, targets=("y",))


def test_classes_that_cannot_be_learnt_are_refused() -> None:
    with pytest.raises(DataError, match=r"'b' \(2\); each needs at least 3.*stratify: false"):
        prepared(classes_of([20, 2]), task="classification")
    with pytest.raises(DataError, match="classes without a single row: b"):
        prepared(classes_of([20, 0, 20]), task="classification")
    with pytest.raises(DataError, match="the target is constant"):
        prepared(classes_of([20]), task="classification")
    lonely = classes_of([20, 20, 1])
    spec = DataSpec(source=Npz(path="x"), validation=0.0, test="held")
    split = make_split(
        Dataset(**{**vars(lonely), "splits": {"held": np.array([40])}}), spec, task="classification", seed=0
    )
    with pytest.raises(DataError, match="absent from the training split: c"):
        check(lonely, split, spec, task="classification")


def test_steps_that_do_not_fit_the_data_are_refused() -> None:
    with pytest.raises(DataError, match=r"data\.preprocess\.1: per_channel_center is for images"):
        prepared(table(), task="regression", preprocess=(Standardize(), PerChannelCenter()))
    with pytest.raises(DataError, match=r"data\.augment\.0: flip is for images"):
        prepared(table(), task="regression", augment=(Flip(),))
    pictures = Dataset(
        np.random.default_rng(0).random((30, 1, 4, 5), np.float32), np.arange(30) % 2, np.arange(30), "image",
        classes=("a", "b"), targets=("y",),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"data\.preprocess\.0: impute is for tables"):
        prepared(pictures, task="classification", preprocess=(Impute(),))
    with pytest.raises(DataError, match=r"augment\.0\.padding: 4 pixels .* at most 3"):
        prepared(pictures, task="classification", augment=(Crop(padding=4),))
    assert prepared(pictures, task="classification", augment=(Crop(padding=4, mode="constant"),)) == ()
    white = ({"name": "whiten", "method": "zca"},)
    many = replace(
        pictures, x=np.random.default_rng(0).random((90, 1, 4, 5), np.float32), y=np.arange(90) % 2
    )
    many = replace(many, row=np.arange(90))
    (warning,) = prepared(many, task="classification", augment=({"name": "flip"},), preprocess=white)
    assert "magnifies what hardly varies" in warning
    assert prepared(many, task="classification", preprocess=white) == ()
    dark = replace(pictures, x=pictures.x - 0.5)
    for change in ("contrast", "jitter", "rand_augment"):
        with pytest.raises(DataError, match=rf"augment\.0: {change} takes black as 0, but .* down to -0\.4"):
            prepared(dark, task="classification", augment=({"name": change},))
        assert prepared(pictures, task="classification", augment=({"name": change},)) == ()
    assert prepared(dark, task="classification", augment=({"name": "noise"}, {"name": "rotate"})) == ()
    pictures.x[3, 0, 1, 2] = np.nan
    with pytest.raises(DataError, match=r"row 4, channel 0, pixel \(1, 2\): NaN"):
        prepared(pictures, task="classification")


def test_odd_data_are_said_but_used(tmp_path: Path) -> None:
    data = table(num_columns=5)
    data.x[:, 1] = 7
    data.x[:, 2] = np.nan
    data.x[:, 4] = data.x[:, 0]
    warnings = "\n".join(prepared(data, task="regression", preprocess=(Impute(),)))
    assert "constant on the training rows: x1;" in warnings
    assert "without a value in the training rows: x2;" in warnings
    assert "column 'x4' repeats column 'x0'" in warnings


def test_copies_of_training_rows_are_counted() -> None:
    """Exactly the copied rows are counted, whatever their width in bytes."""
    for num_columns in (1, 2, 3):
        data = table(60, num_columns)
        assert prepared(data, task="regression") == ()
        spec = DataSpec.model_validate({"source": "digits"})
        split = make_split(data, spec, task="regression", seed=0)
        for test, train in zip(split.test[:4], split.train[:4], strict=True):
            data.x[test], data.y[test] = data.x[train], data.y[train]
        data.x[split.test[5]] = data.x[split.train[5]]
        (warning,) = prepared(data, task="regression")
        assert warning.startswith("4 of 12 test rows are copies of training rows")


def test_a_number_column_spoiled_by_a_word_is_said(tmp_path: Path) -> None:
    rows = "".join(f"{i}.5,{i}\n" for i in range(30))
    data = csv(tmp_path, f"a,y\n{rows}?,3\n")
    assert any("because of '?'" in warning for warning in prepared(data, task="regression"))
    missing = csv(tmp_path, f"a,y\n{rows}NA,3\n")
    assert missing.categories == {}


def test_missing_categories_are_said(tmp_path: Path) -> None:
    rows = "".join(f"{'ab'[i % 2] if i % 5 else ''},{i},{i * i}\n" for i in range(40))
    warnings = prepared(csv(tmp_path, f"a,b,y\n{rows}"), task="regression")
    assert any("column 'a'" in warning and "have no value" in warning for warning in warnings)


def test_an_official_test_split_wins_and_says_so(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 2))
    arrays = {"X_train": x[:30], "y_train": np.arange(30) % 2, "X_test": x[30:], "y_test": np.arange(10) % 2}
    data = npz(tmp_path, **arrays)
    assert prepared(data, task="classification") == ()
    (warning,) = prepared(data, task="classification", test=0.4)
    assert "'test' split of its own (10 rows)" in warning


def test_empty_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.validation: 0\.01 of 40 rows is no row"):
        prepared(table(), task="regression", validation=0.01)
    with pytest.raises(DataError, match="sum must be below 1"):
        prepared(table(), task="regression", validation=0.5, test=0.5)
    spec = DataSpec.model_validate({"source": "digits", "validation": 0.0, "test": 0.0})
    data = load_data(spec, task="classification", directory=tmp_path)
    split = make_split(data, spec, task="classification", seed=0)
    assert (len(split.train), len(split.validation), len(split.test)) == (1797, 0, 0)
    assert check(data, split, spec, task="classification") == ()


def test_covariances_that_the_rows_cannot_tell_are_refused() -> None:
    """With fewer rows than columns shrinkage is offered; with it, or with fewer axes before, all is well."""
    few = table(num_rows=20, num_columns=16)
    for method in ("pca", "zca"):
        with pytest.raises(
            DataError, match=r"preprocess\.0: 13 training rows .* 16 columns.*'shrinkage: auto'"
        ):
            prepared(few, task="regression", preprocess=({"name": "whiten", "method": method},))
        fine = {"name": "whiten", "method": method, "shrinkage": "auto"}
        assert prepared(few, task="regression", preprocess=(fine,)) == ()
    chain = ({"name": "decorrelate", "components": 4}, {"name": "whiten"})
    assert prepared(few, task="regression", preprocess=chain) == ()
    with pytest.raises(DataError, match=r"preprocess\.0\.components: 17 axes, but the rows have 16 columns"):
        prepared(few, task="regression", preprocess=({"name": "decorrelate", "components": 17},))
    with pytest.raises(DataError, match="keeps a matrix of 5000 x 5000"):
        prepared(table(num_columns=5000), task="regression", preprocess=({"name": "decorrelate"},))


def test_columns_that_others_determine_are_said_once() -> None:
    data = table(num_rows=200, num_columns=5)
    data.x[:, 3] = data.x[:, 0] + data.x[:, 1]
    (warning,) = prepared(data, task="regression")
    assert warning.startswith("columns that are nearly a linear function of the other columns: x0, x1, x3;")
    assert prepared(data, task="regression", preprocess=({"name": "decorrelate"},)) == ()
