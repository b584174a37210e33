"""Laws of the index plans: in bounds, functions of their arguments alone, no validation row trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_svc.data.indices import epoch_order, fold_rows, member_rows
from ensemble_svc.data.split import Split
from ensemble_svc.errors import DataError
from ensemble_svc.spec.job import RESAMPLES, Bootstrap, KFold, NoResample, Resample, Subsample, Task

FAST = settings(max_examples=30, deadline=None)
CHOICES = [choice() for choice in RESAMPLES]


def example(
    num_rows: int = 300, num_classes: int = 3, seed: int = 0, task: Task = "classification"
) -> tuple[Split, np.ndarray]:
    rng = np.random.default_rng(seed)
    order = rng.permutation(num_rows)
    cut = num_rows // 5
    split = Split(np.sort(order[2 * cut :]), np.sort(order[:cut]), np.sort(order[cut : 2 * cut]))
    y = (
        rng.integers(num_classes, size=num_rows)
        if task == "classification"
        else rng.normal(size=(num_rows, 2))
    )
    return split, y


def rows_of(resample: Resample, member: int, *, split: Split, y: np.ndarray, seed: int = 0) -> np.ndarray:
    task: Task = "classification" if y.ndim == 1 else "regression"
    return member_rows(resample, split, y, task=task, job_seed=seed, member=member)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("resample", CHOICES, ids=lambda choice: choice.name)
@FAST
@given(seed=st.integers(0, 2**40), member=st.integers(0, 10_000))
def test_member_rows_are_training_rows(resample: Resample, task: Task, seed: int, member: int) -> None:
    split, y = example(task=task)
    rows = rows_of(resample, member, split=split, y=y, seed=seed)
    assert rows.dtype == np.int64
    assert len(rows) > 0
    assert np.array_equal(rows, np.sort(rows))
    assert np.isin(rows, split.train).all()
    assert not np.isin(rows, np.concatenate([split.validation, split.test])).any()
    assert np.array_equal(rows, rows_of(resample, member, split=split, y=y, seed=seed))
    if task == "classification":
        assert set(y[rows]) == set(y[split.train])
    if not isinstance(resample, Bootstrap):
        assert len(np.unique(rows)) == len(rows)


@pytest.mark.parametrize("resample", [Bootstrap(), Subsample()], ids=lambda choice: choice.name)
def test_members_and_seeds_draw_apart(resample: Resample) -> None:
    split, y = example()
    drawn = {rows_of(resample, m, split=split, y=y, seed=s).tobytes() for m in range(10) for s in range(3)}
    assert len(drawn) == 30


def test_none_gives_every_member_all_rows() -> None:
    split, y = example()
    assert np.array_equal(rows_of(NoResample(), 7, split=split, y=y), split.train)


def test_a_bootstrap_bag_holds_63_percent_of_the_rows() -> None:
    """1 - 1/e; 20 bags of 6,000 rows put the mean within four standard errors."""
    split, y = example(10_000)
    n = len(split.train)
    bags = [rows_of(Bootstrap(), m, split=split, y=y) for m in range(20)]
    assert {len(bag) for bag in bags} == {n}
    share = np.mean([len(np.unique(bag)) / n for bag in bags])
    deviation = np.sqrt((np.exp(-1) - 2 * np.exp(-2)) / n / 20)
    assert abs(share - (1 - np.exp(-1))) < 4 * deviation
    counts = np.bincount(np.searchsorted(split.train, bags[0]), minlength=n)
    assert abs(counts.var() - 1) < 0.15


def test_a_subsample_has_its_share() -> None:
    split, y = example()
    for fraction in (0.1, 0.5, 0.8, 1.0):
        rows = rows_of(Subsample(fraction=fraction), 1, split=split, y=y)
        assert len(rows) == round(fraction * len(split.train))


@FAST
@given(
    folds=st.integers(2, 12),
    num_rows=st.integers(60, 300),
    seed=st.integers(0, 2**40),
    task=st.sampled_from(["classification", "regression"]),
)
def test_folds_partition_the_training_rows(folds: int, num_rows: int, seed: int, task: Task) -> None:
    split, y = example(num_rows, seed=seed, task=task)
    choice = KFold(folds=folds)
    held = [fold_rows(choice, split, y, task=task, job_seed=seed, member=m) for m in range(folds)]
    assert np.array_equal(np.sort(np.concatenate(held)), split.train)
    sizes = [len(rows) for rows in held]
    assert max(sizes) - min(sizes) <= 1
    for member, rows in enumerate(held):
        kept = rows_of(choice, member, split=split, y=y, seed=seed)
        assert np.array_equal(np.sort(np.concatenate([kept, rows])), split.train)
        again = rows_of(choice, member + folds, split=split, y=y, seed=seed)
        assert np.array_equal(again, kept)
    if task == "classification":
        for label in np.unique(y[split.train]):
            counts = [int((y[rows] == label).sum()) for rows in held]
            assert max(counts) - min(counts) <= 1


def rare(count: int) -> tuple[Split, np.ndarray]:
    """40 rows of which ``count`` are of class 1."""
    y = np.zeros(60, dtype=np.int64)
    y[:count] = 1
    return Split(np.arange(40), np.arange(40, 50), np.arange(50, 60)), y


@pytest.mark.parametrize("resample", [Bootstrap(), Subsample(fraction=0.1)], ids=lambda choice: choice.name)
def test_bags_without_a_class_are_drawn_again(resample: Resample) -> None:
    """With one row of a class about 37 % of the bags (90 % of the small shares) lack it at first."""
    split, y = rare(1)
    for member in range(30):
        rows = rows_of(resample, member, split=split, y=y)
        assert 0 in rows
        assert np.array_equal(rows, rows_of(resample, member, split=split, y=y))


def test_regression_bags_hold_more_than_one_target() -> None:
    split = Split(np.arange(3), np.empty(0, np.int64), np.empty(0, np.int64))
    y = np.array([[0.0], [0.0], [1.0]])
    for member in range(30):
        assert len(np.unique(y[rows_of(Bootstrap(), member, split=split, y=y)])) == 2


@pytest.mark.parametrize(
    "resample, made, says",
    [
        (
            Subsample(fraction=0.02),
            rare(3),
            "member 3: 1000 resamples of the 40 training rows all lack a class",
        ),
        (KFold(folds=2), rare(1), "Each class needs at least 2 training rows"),
        (KFold(folds=41), rare(9), "folds: 41, but there are only 40 training rows"),
    ],
)
def test_data_too_small_to_resample(resample: Resample, made: Any, says: str) -> None:
    split, y = made
    with pytest.raises(DataError, match=says):
        rows_of(resample, 3, split=split, y=y)


@FAST
@given(
    num_rows=st.integers(0, 500),
    seed=st.integers(0, 2**40),
    member=st.integers(0, 1000),
    epoch=st.integers(0, 1000),
)
def test_an_epoch_is_a_permutation(num_rows: int, seed: int, member: int, epoch: int) -> None:
    order = epoch_order(num_rows, job_seed=seed, member=member, epoch=epoch)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(num_rows))
    assert np.array_equal(order, epoch_order(num_rows, job_seed=seed, member=member, epoch=epoch))


def test_epochs_members_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        epoch_order(100, job_seed=s, member=m, epoch=e).tobytes()
        for s in range(3)
        for m in range(5)
        for e in range(5)
    }
    assert len(orders) == 75


def test_draws_leave_the_global_generator_alone() -> None:
    split, y = example()
    before = np.random.get_state()[1].tobytes()  # noqa: NPY002
    for resample in CHOICES:
        rows_of(resample, 0, split=split, y=y)
    epoch_order(10, job_seed=0, member=0, epoch=0)
    assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002
