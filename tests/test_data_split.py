"""Laws of the split: disjoint, covering, in proportion, and a function of (values, seed) alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ensemble_svc.data.dataset import Dataset
from ensemble_svc.data.shares import allocate
from ensemble_svc.data.sources import load
from ensemble_svc.data.split import Split, make_split
from ensemble_svc.errors import DataError
from ensemble_svc.spec.data import SPLITS, DataSpec, Digits

FAST = settings(max_examples=60, deadline=None)


def labelled(y: np.ndarray, **options: Any) -> Dataset:
    x = np.arange(len(y), dtype=np.float32)[:, None]
    classes = tuple(f"c{i}" for i in range(int(y.max()) + 1))
    return Dataset(x, y.astype(np.int64), np.arange(len(y)), "table", ("x0",), classes=classes, **options)


def split_of(data: Dataset, *, seed: int = 0, directory: Path = Path(), **options: Any) -> Split:
    spec = DataSpec.model_validate({"source": "digits", **options})
    return make_split(data, spec, task="classification", seed=seed, directory=directory)


def parts(split: Split) -> list[np.ndarray]:
    return [split.train, split.validation, split.test]


@FAST
@given(
    counts=st.lists(st.integers(3, 60), min_size=2, max_size=8),
    test=st.floats(0.0, 0.45),
    validation=st.floats(0.0, 0.45),
    stratify=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_random_splits_are_disjoint_covering_and_in_proportion(
    counts: list[int], test: float, validation: float, stratify: bool, seed: int
) -> None:
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    data = labelled(y)
    options = {"test": test, "validation": validation, "stratify": stratify, "seed": seed}
    assume(all(share == 0 or round(share * len(y)) > 0 for share in (test, validation)))
    split = split_of(data, **options)
    joined = np.concatenate(parts(split))
    assert np.array_equal(np.sort(joined), np.arange(len(y)))
    assert all(np.array_equal(part, np.sort(part)) and part.dtype == np.int64 for part in parts(split))
    assert abs(len(split.test) - test * len(y)) <= (1 if not stratify else len(counts))
    if stratify:
        for part, share in zip(parts(split), (1 - test - validation, validation, test), strict=True):
            quota = share * np.array(counts)
            assert (np.abs(np.bincount(y[part], minlength=len(counts)) - quota) < 1 + 1e-6).all()
        assert (np.bincount(y[split.train], minlength=len(counts)) > 0).all()
    again = split_of(data, **options)
    assert split.hash == again.hash


@FAST
@given(
    counts=st.lists(st.integers(20, 500), min_size=1, max_size=30),
    test=st.floats(0.05, 0.4),
    validation=st.floats(0.05, 0.4),
)
def test_totals_come_out_as_asked(counts: list[int], test: float, validation: float) -> None:
    test_C, validation_C = allocate(np.array(counts), test, validation)
    assert test_C.sum() == round(sum(counts) * test)
    assert abs(validation_C.sum() - sum(counts) * validation) <= 2


def test_the_seed_decides_and_the_hash_tells() -> None:
    data = labelled(np.arange(200) % 4)
    hashes = {split_of(data, seed=seed).hash for seed in range(20)}
    assert len(hashes) == 20


def test_test_rows_do_not_depend_on_the_validation_share() -> None:
    data = labelled(np.arange(200) % 4)
    tests = {split_of(data, validation=share).test.tobytes() for share in (0.0, 0.1, 0.3)}
    assert len(tests) == 1


def test_every_kind_of_split_is_known() -> None:
    assert set(SPLITS.by_name) == {"fractions", "column", "indices"}


def test_named_splits_are_taken_as_they_are() -> None:
    y = np.arange(60) % 3
    splits = {"train": np.arange(10, 60), "test": np.arange(10)}
    data = labelled(y, splits=splits)
    for test in ("test", 0.2, 0.3):
        split = split_of(data, test=test, validation=0.2)
        assert np.array_equal(split.test, splits["test"])
        assert len(split.validation) == 10
        assert np.array_equal(np.sort(np.concatenate([split.train, split.validation])), splits["train"])
    without = split_of(data, test=0.0, validation=0.0)
    assert len(without.test) == 0
    assert np.array_equal(without.train, splits["train"])
    both = labelled(y, splits={**splits, "train": np.arange(20, 60), "validation": np.arange(10, 20)})
    assert np.array_equal(split_of(both, validation="val").validation, np.arange(10, 20))
    assert np.array_equal(split_of(both).validation, np.arange(10, 20))


def test_named_splits_that_are_not_there() -> None:
    data = labelled(np.arange(60) % 3, splits={"train": np.arange(50), "test": np.arange(50, 60)})
    with pytest.raises(
        DataError, match=r"data\.test names the split 'tset'.*Did you mean 'test'.*train, test"
    ):
        split_of(data, test="tset")
    with pytest.raises(DataError, match="no rows are left to train on"):
        split_of(labelled(np.arange(6) % 2, splits={"a": np.arange(6)}), test="a", validation=0.0)
    overlapping = labelled(np.arange(60) % 3, splits={"train": np.arange(60), "test": np.arange(50, 60)})
    with pytest.raises(
        DataError, match="10 rows stand in the train and in the test split, the first is row 51"
    ):
        split_of(overlapping, test="test")


def test_a_column_tells_the_splits_apart() -> None:
    values = np.array(["train", "val", "test", "train", "train", "train"])
    data = labelled(np.array([0, 1, 0, 1, 0, 1]), columns={"part": values})
    column = {"name": "column", "column": "part"}
    split = split_of(data, split=column)
    assert [part.tolist() for part in parts(split)] == [[0, 3, 4, 5], [1], [2]]
    with pytest.raises(DataError, match=r"row 3, column 'part': 'tset' names no split.*Did you mean 'test'"):
        split_of(labelled(data.y, columns={"part": np.where(values == "test", "tset", values)}), split=column)
    with pytest.raises(DataError, match=r"column 'prt' is not there\. Did you mean 'part'"):
        split_of(data, split={"name": "column", "column": "prt"})
    with pytest.raises(DataError, match=r"is read as a feature; add it to data\.source\.drop"):
        split_of(data, split={"name": "column", "column": "x0"})


def test_a_column_without_validation_gives_some_of_its_training_rows() -> None:
    values = np.array(["train"] * 40 + ["test"] * 10)
    data = labelled(np.arange(50) % 2, columns={"part": values})
    split = split_of(data, split={"name": "column", "column": "part"}, validation=0.25)
    assert np.array_equal(split.test, np.arange(40, 50))
    assert len(split.validation) == 10
    assert split.validation.max() < 40


def test_files_of_indices(tmp_path: Path) -> None:
    """The UCI sets' standard splits: train_idx and test_idx, one row per split."""
    rng = np.random.default_rng(0)
    orders = np.stack([rng.permutation(50) for _ in range(4)])
    np.savez(tmp_path / "s.npz", train_idx=orders[:, :40], test_idx=orders[:, 40:])
    data = labelled(np.arange(50) % 2)
    for index in range(4):
        split = split_of(
            data,
            split={"name": "indices", "path": "s.npz", "index": index},
            validation=0.1,
            directory=tmp_path,
        )
        assert np.array_equal(split.test, np.sort(orders[index, 40:]))
        rest = np.concatenate([split.train, split.validation])
        assert np.array_equal(np.sort(rest), np.sort(orders[index, :40]))
        assert len(split.validation) == 4
    np.savez(tmp_path / "flat.npz", train_idx=np.arange(30), test_idx=np.arange(30, 50))
    flat = split_of(data, split={"name": "indices", "path": "flat.npz"}, validation=0.0, directory=tmp_path)
    assert len(flat.train) == 30


@pytest.mark.parametrize(
    "arrays, index, says",
    [
        ({"train_idx": [[0, 1]], "test_idx": [[2]]}, 3, r"split\.index: 3, but 'train_idx' .* 1 splits"),
        ({"train_idx": [[0, 99]], "test_idx": [[2]]}, 0, r"train_idx\[0\], entry 2: 99; .* 0 to 49"),
        ({"train_idx": [[0, -1]], "test_idx": [[2]]}, 0, r"entry 2: -1"),
        ({"train_idx": [[0, 0.5]], "test_idx": [[2]]}, 0, r"entry 2: 0\.5"),
        ({"train_idx": [[0, 0]], "test_idx": [[2]]}, 0, r"row 0 is listed 2 times"),
        ({"train_idx": [[0, 2]], "test_idx": [[2]]}, 0, r"1 rows stand in the train and in the test split"),
        ({"train_idx": [[0, 2]]}, 0, r"must hold train_idx and test_idx"),
    ],
)
def test_bad_files_of_indices(arrays: dict[str, Any], index: int, says: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", **arrays)
    choice = {"name": "indices", "path": "s.npz", "index": index}
    with pytest.raises(DataError, match=says):
        split_of(labelled(np.arange(50) % 2), split=choice, validation=0.0, directory=tmp_path)


def test_the_split_is_the_same_in_every_release() -> None:
    """Golden value: a change here gives every user's run another split."""
    data = load(Digits(), task="classification", directory=Path())
    spec = DataSpec(source=Digits())
    split = make_split(data, spec, task="classification", seed=0)
    assert [len(part) for part in parts(split)] == [1168, 270, 359]
    assert split.hash[:16] == "8895651bb91fc4b5"
