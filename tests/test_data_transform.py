"""Laws of the transform: packed = alone bit for bit, fitted on the rows it was given and on no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call, stack_module_state, vmap

from ensemble_svc.data.dataset import Dataset, InputSchema
from ensemble_svc.data.schema import describe
from ensemble_svc.data.split import Split
from ensemble_svc.data.transform import Transform
from ensemble_svc.spec.data import DataSpec
from ensemble_svc.spec.preprocess import (
    PREPROCESS,
    Center,
    Decorrelate,
    Impute,
    PerChannelCenter,
    Preprocess,
    Scale,
    Standardize,
    Whiten,
)

FAST = settings(max_examples=30, deadline=None)
NONE = np.empty(0, np.int64)
TABLE_STEPS: list[tuple[Preprocess, ...]] = [
    (),
    (Standardize(),),
    (Impute(),),
    (Impute(strategy="mean", indicator=False),),
    (Impute(), Standardize()),
    (Standardize(), Impute(strategy="mean")),
    (Standardize(), Standardize()),
    (Center(), Impute()),
    (Impute(), Scale()),
    (Impute(), Decorrelate()),
    (Impute(), Decorrelate(components=2), Standardize()),
    (Impute(), Decorrelate(variance=0.7)),
    (Impute(), Whiten()),
    (Impute(), Standardize(), Whiten(method="zca", shrinkage="auto")),
]
IMAGE_STEPS: list[tuple[Preprocess, ...]] = [
    (),
    (Standardize(),),
    (PerChannelCenter(),),
    (PerChannelCenter(), Standardize()),
    (Center(),),
    (Scale(),),
    (Decorrelate(),),
    (Decorrelate(components=7), Scale()),
    (PerChannelCenter(), Whiten(method="pca", shrinkage=0.2)),
    (Whiten(method="zca", shrinkage="auto"), PerChannelCenter()),
]


def mixed(num_rows: int = 50, seed: int = 0) -> Dataset:
    """Three numeric columns (the second with gaps), two categorical ones (3 and 5 values, with gaps)."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(num_rows, 5)) * 10 + 3).astype(np.float32)
    x[rng.random(num_rows) < 0.2, 1] = np.nan
    x[0, 1] = np.nan
    x[:, 3], x[:, 4] = rng.integers(3, size=num_rows), rng.integers(5, size=num_rows)
    x[rng.random(num_rows) < 0.1, 3] = np.nan
    categories = {"p": ("a", "b", "c"), "q": ("1", "2", "3", "4", "5")}
    names = ("i", "j", "k", "p", "q")
    y = rng.normal(size=(num_rows, 1)).astype(np.float32)
    return Dataset(x, y, np.arange(num_rows), "table", names, categories, targets=("y",))


def pictures(dtype: type = np.uint8, num_rows: int = 20, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, size=(num_rows, 3, 4, 5)).astype(dtype)
    x[:, 0, 0, 0] = 9
    return Dataset(x, np.arange(num_rows) % 2, np.arange(num_rows), "image", classes=("a", "b"))


def schema_of(data: Dataset, steps: tuple[Preprocess, ...]) -> InputSchema:
    spec = DataSpec.model_validate({"source": "digits", "preprocess": steps})
    return describe(data, Split(np.arange(len(data)), NONE, NONE), spec)


def fitted(data: Dataset, steps: tuple[Preprocess, ...], rows: Any = slice(None)) -> Transform:
    return Transform(schema_of(data, steps), steps).fit(data.x[rows])


def cases() -> list[Any]:
    tables = [(mixed(), steps) for steps in TABLE_STEPS]
    images = [(pictures(dtype), steps) for dtype in (np.uint8, np.float32) for steps in IMAGE_STEPS]
    return [
        pytest.param(data, steps, id=f"{data.kind}-{data.x.dtype}-" + "+".join(s.name for s in steps))
        for data, steps in (*tables, *images)
    ]


def test_every_step_is_tested() -> None:
    tested = {step.name for steps in (*TABLE_STEPS, *IMAGE_STEPS) for step in steps}
    assert tested == set(PREPROCESS.by_name)


@pytest.mark.parametrize("data, steps", cases())
def test_packed_equals_alone_bit_for_bit(data: Dataset, steps: tuple[Preprocess, ...]) -> None:
    """K members' buffers stacked, each with its own rows or all with the same."""
    rng = np.random.default_rng(1)
    bags = [rng.integers(len(data), size=len(data)) for _ in range(4)]
    alone = [fitted(data, steps, bag) for bag in bags]
    params, buffers = stack_module_state(alone)
    skeleton = Transform(schema_of(data, steps), steps)
    x = torch.from_numpy(data.x)
    x_KB = torch.stack([x[torch.from_numpy(bag)] for bag in bags])

    def one(member_params: Any, member_buffers: Any, rows: torch.Tensor) -> torch.Tensor:
        return functional_call(skeleton, (member_params, member_buffers), (rows,))

    in_dims = (0 if params else None, 0 if buffers else None)
    apart = vmap(one, in_dims=(*in_dims, 0))(params, buffers, x_KB)
    for k, member in enumerate(alone):
        assert torch.equal(torch.nan_to_num(apart[k]), torch.nan_to_num(member(x_KB[k])))
    if buffers:
        shared = vmap(one, in_dims=(*in_dims, None))(params, buffers, x)
        for k, member in enumerate(alone):
            assert torch.equal(torch.nan_to_num(shared[k]), torch.nan_to_num(member(x)))


@pytest.mark.parametrize("data, steps", cases())
def test_shape_type_and_state(data: Dataset, steps: tuple[Preprocess, ...]) -> None:
    """The promised shape in float32, row by row, without gaps once imputed; load(save) changes nothing."""
    transform = fitted(data, steps)
    x = torch.from_numpy(data.x)
    out = transform(x)
    assert out.shape == (len(data), *transform.out_shape)
    assert out.dtype == torch.float32
    assert not list(transform.parameters())
    assert all(buffer.dtype == torch.float32 for buffer in transform.buffers())
    if data.kind == "image" or any(isinstance(step, Impute) for step in steps):
        assert torch.isfinite(out).all()
    again = Transform(schema_of(data, steps), steps)
    again.load_state_dict(transform.state_dict())
    assert torch.equal(torch.nan_to_num(again(x)), torch.nan_to_num(out))
    assert torch.equal(torch.nan_to_num(transform(x[3:4])), torch.nan_to_num(out[3:4]))


@FAST
@given(
    seed=st.integers(0, 2**32),
    scale=st.floats(1e-3, 1e4),
    offset=st.floats(-100, 100),
    num_rows=st.integers(3, 200),
)
def test_standardised_rows_have_mean_0_and_deviation_1(
    seed: int, scale: float, offset: float, num_rows: int
) -> None:
    """Counted with the bag's repeats, up to what float32 can hold of a small spread far from 0."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(num_rows, 4)) * scale + offset * scale).astype(np.float32)
    x[:, 3] = 5
    bag = rng.integers(num_rows, size=num_rows)
    bag[:2] = (0, 1)
    names = tuple("abcd")
    data = Dataset(x, x[:, :1], np.arange(num_rows), "table", names)
    out = fitted(data, (Standardize(),), bag)(torch.from_numpy(x[bag])).double().numpy()
    exact = x[bag].astype(np.float64)
    rounding = np.abs(exact[:, :3]).max(axis=0) / exact[:, :3].std(axis=0) * 2.0**-22
    assert (np.abs(out[:, :3].mean(axis=0)) <= 1e-4 + rounding).all()
    assert (np.abs(out[:, :3].std(axis=0) - 1) <= 1e-4 + rounding).all()
    assert (out[:, 3] == 0).all()


def test_images_are_standardised_pixel_by_pixel_and_centred_by_channel() -> None:
    for dtype, unit in ((np.uint8, 255), (np.float32, 1)):
        data = pictures(dtype)
        x = torch.from_numpy(data.x)
        pixels = data.x.astype(np.float64) / unit
        out = fitted(data, (Standardize(),))(x).numpy()
        np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-5)
        deviation = out.std(axis=0)
        assert deviation[0, 0, 0] == 0
        np.testing.assert_allclose(np.delete(deviation.reshape(-1), 0), 1, atol=1e-5)
        centred = fitted(data, (PerChannelCenter(),))(x).numpy()
        mean = pixels.mean(axis=(0, 2, 3), keepdims=True)
        np.testing.assert_allclose(centred, pixels - mean, atol=1e-4)
        plain = fitted(data, ())(x).numpy()
        np.testing.assert_allclose(plain, pixels, rtol=1e-6)


def test_a_constant_pixel_stays_0_whatever_comes_later() -> None:
    data = pictures()
    transform = fitted(data, (Standardize(),))
    other = torch.full((1, 3, 4, 5), 200, dtype=torch.uint8)
    assert transform(other)[0, 0, 0, 0] == 0
    assert torch.isfinite(transform(other)).all()


@pytest.mark.parametrize("steps", TABLE_STEPS, ids=lambda steps: "+".join(s.name for s in steps))
def test_fitting_looks_at_its_own_rows_only(steps: tuple[Preprocess, ...]) -> None:
    """Whatever happens in the other rows (extremes, gaps, new codes), the fit is the same."""
    data = mixed()
    train = np.arange(30)
    schema = schema_of(data, steps)
    first = Transform(schema, steps).fit(data.x[train]).state_dict()
    data.x[30:, :3] = 1e30
    data.x[30:40, 0] = np.nan
    data.x[30:, 3:] = 0
    second = Transform(schema, steps).fit(data.x[train]).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_medians_and_means_count_the_bag_with_repeats() -> None:
    x = np.array([[1.0], [2.0], [10.0], [np.nan]], np.float32)
    data = Dataset(x, x, np.arange(4), "table", ("a",))
    bag = [0, 0, 0, 1, 2, 3]
    gap = torch.tensor([[np.nan], [7.0]])
    for strategy, fill in (("median", 1.0), ("mean", 3.0)):
        steps = (Impute(strategy=strategy),)
        out = fitted(data, steps, bag)(gap)
        assert out.tolist() == [[fill, 1.0], [7.0, 0.0]]


def test_indicators_are_of_the_training_split() -> None:
    """A gap that only other rows have gets a fill but no indicator."""
    data = mixed()
    data.x[40:, 0] = np.nan
    spec = DataSpec.model_validate({"source": "digits", "preprocess": (Impute(),)})
    schema = describe(data, Split(np.arange(30), NONE, np.arange(30, 50)), spec)
    assert schema.indicators == (1,)
    transform = Transform(schema, (Impute(),)).fit(data.x[:30])
    assert transform.out_shape == (3 + 1 + 3 + 5 + 2,)
    out = transform(torch.from_numpy(data.x))
    assert torch.isfinite(out).all()
    np.testing.assert_array_equal(out[:, 3].numpy(), np.isnan(data.x[:, 1]))


def test_a_column_without_any_value_becomes_0() -> None:
    data = mixed()
    data.x[:, 1] = np.nan
    for steps in ((Impute(), Standardize()), (Standardize(), Impute()), (Impute(strategy="mean"),)):
        out = fitted(data, steps)(torch.from_numpy(data.x))
        assert (out[:, 1] == 0).all()
        assert torch.isfinite(out).all()


@FAST
@given(seed=st.integers(0, 2**32), bag_size=st.integers(1, 60))
def test_categories_are_one_hot_and_what_was_not_seen_has_its_own_slot(seed: int, bag_size: int) -> None:
    data = mixed(60, seed)
    rng = np.random.default_rng(seed)
    bag = rng.integers(60, size=bag_size)
    transform = fitted(data, (Impute(),), bag)
    x = data.x.copy()
    x[0, 3], x[1, 3], x[2, 4] = -1, 99, np.nan
    out = transform(torch.from_numpy(x)).numpy()[:, -(3 + 5 + 2) :]
    for column, slots, unseen in ((3, out[:, :3], out[:, 8]), (4, out[:, 3:8], out[:, 9])):
        seen = np.unique(data.x[bag, column])
        assert ((slots.sum(axis=1) + unseen) == 1).all()
        for i, code in enumerate(x[:, column]):
            if code in seen and 0 <= code < slots.shape[1]:
                assert slots[i, int(code)] == 1
            else:
                assert unseen[i] == 1


def test_a_table_of_categories_alone() -> None:
    x = np.array([[0], [1], [1]], np.float32)
    data = Dataset(x, x, np.arange(3), "table", ("c",), {"c": ("u", "v")})
    out = fitted(data, (Impute(), Standardize()))(torch.tensor([[0.0], [1.0], [5.0]]))
    assert out.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_the_fit_does_not_depend_on_the_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, size=(9000, 3, 6, 6), dtype=np.uint8)
    data = Dataset(x, np.arange(9000) % 2, np.arange(9000), "image", classes=("a", "b"))
    before, states = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        states.append(fitted(data, (PerChannelCenter(), Standardize())).state_dict())
    torch.set_num_threads(before)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    pixels = x / 255
    exact = (pixels - pixels.mean(axis=(0, 2, 3), keepdims=True)).std(axis=0)
    np.testing.assert_allclose(1 / states[0]["steps.1.scale"].numpy(), exact, rtol=1e-5)
