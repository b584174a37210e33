"""Laws of centring, scaling, PCA and whitening, against their definitions and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from ensemble_svc.data.dataset import Dataset, InputSchema
from ensemble_svc.data.dependence import dependent_columns
from ensemble_svc.data.fitting import Rows64
from ensemble_svc.data.linear import shrinkage_of, spread_of
from ensemble_svc.data.shapes import shape_through
from ensemble_svc.data.transform import Transform
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

FAST = settings(max_examples=25, deadline=None)
SEEDS = st.integers(0, 2**32)
WHITE = [Whiten(method=method, eps=0.0) for method in ("pca", "zca")]
over_white = pytest.mark.parametrize("white", WHITE, ids=lambda white: white.method)


def mixed_columns(seed: int, num_rows: int = 300, num_columns: int = 6) -> np.ndarray:
    """Correlated columns of scales from 0.1 to 10, far from 0."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(num_columns, num_columns)) + 2 * np.eye(num_columns)
    scales = 10 ** rng.uniform(-1, 1, num_columns)
    return (
        (rng.normal(size=(num_rows, num_columns)) @ mixing + rng.normal(size=num_columns)) * scales
    ).astype(np.float32)


def pixels(num_rows: int = 300, seed: int = 0) -> np.ndarray:
    """Bytes [N, 2, 3, 4] whose neighbours are alike, one pixel constant."""
    rng = np.random.default_rng(seed)
    smooth = rng.normal(size=(num_rows, 2, 3, 4)).cumsum(axis=3) * 20 + 128
    smooth[:, 0, 0, 0] = 7
    return smooth.clip(0, 255).astype(np.uint8)


def schema_of(x: np.ndarray) -> InputSchema:
    if x.ndim == 4:
        dtype: Any = "uint8" if x.dtype == np.uint8 else "float32"
        return InputSchema(kind="image", shape=x.shape[1:], dtype=dtype)
    names = tuple(f"x{i}" for i in range(x.shape[1]))
    return InputSchema(kind="table", shape=x.shape[1:], dtype="float32", features=names)


def fitted(x: np.ndarray, *steps: Preprocess) -> Transform:
    return Transform(schema_of(x), steps).fit(x)


def through(x: np.ndarray, *steps: Preprocess) -> np.ndarray:
    """What the steps, fitted on the rows, make of them, in float64."""
    return fitted(x, *steps)(torch.from_numpy(x)).double().numpy()


def covariance(out: np.ndarray) -> np.ndarray:
    flat = out.reshape(len(out), -1)
    return np.cov(flat.T, ddof=0)


@pytest.mark.parametrize("name", PREPROCESS.by_name)
@pytest.mark.parametrize("kind", ["table", "image"])
def test_the_promised_shape_is_the_shape(name: str, kind: str) -> None:
    x = mixed_columns(0) if kind == "table" else pixels()
    if (name, kind) in (("per_channel_center", "table"), ("impute", "image")):
        return
    step: Any = PREPROCESS.get(name)()
    transform = fitted(x, step)
    assert transform.out_shape == shape_through((step,), x.shape[1:])
    assert transform(torch.from_numpy(x[:5])).shape == (5, *transform.out_shape)


@FAST
@given(seed=SEEDS, repeat=st.booleans())
def test_centred_and_standardised_as_scikit_learn_does(seed: int, repeat: bool) -> None:
    x = mixed_columns(seed)
    x = x[np.random.default_rng(seed).integers(len(x), size=200)] if repeat else x
    scaler = StandardScaler().fit(x.astype(np.float64))
    np.testing.assert_allclose(through(x, Standardize()), scaler.transform(x.astype(np.float64)), atol=2e-5)
    np.testing.assert_allclose(through(x, Center()).mean(axis=0), 0, atol=1e-5 * np.abs(x).max())
    np.testing.assert_allclose(
        through(x, Center()) + x.mean(axis=0, dtype=np.float64), x, rtol=1e-4, atol=1e-4
    )


@FAST
@given(seed=SEEDS)
def test_scaled_features_have_mean_square_1_and_keep_their_signs_and_zeros(seed: int) -> None:
    x = mixed_columns(seed)
    x[:, 1] = 0
    out = through(x, Scale())
    np.testing.assert_allclose(np.delete((out**2).mean(axis=0), 1), 1, rtol=1e-5)
    assert (np.sign(out) == np.sign(x)).all()
    assert (fitted(x, Scale())(torch.full((3, 6), 5.0))[:, 1] == 0).all()


def test_the_mean_image_is_taken_from_bytes_as_from_numbers() -> None:
    x = pixels()
    unit = x.astype(np.float64) / 255
    np.testing.assert_allclose(through(x, Center()), unit - unit.mean(axis=0), atol=1e-6)
    moments = np.sqrt((unit**2).mean(axis=0))
    np.testing.assert_allclose(through(x, Scale()), unit / moments, rtol=1e-5)


@FAST
@given(seed=SEEDS)
def test_decorrelated_rows_are_the_principal_components(seed: int) -> None:
    """Uncorrelated, ordered by variance, with scikit-learn's axes and signs."""
    x = mixed_columns(seed)
    out = through(x, Decorrelate())
    spread = covariance(out)
    scale = np.abs(spread).max()
    np.testing.assert_allclose(spread - np.diag(np.diag(spread)), 0, atol=1e-4 * scale)
    assert (np.diff(np.diag(spread)) <= 1e-4 * scale).all()
    expected = PCA(svd_solver="full").fit_transform(x.astype(np.float64))
    np.testing.assert_allclose(out, expected, atol=1e-4 * np.sqrt(scale))
    first = through(x, Decorrelate(components=2))
    np.testing.assert_array_equal(first, out[:, :2])


@FAST
@given(seed=SEEDS, share=st.floats(0.05, 1.0))
def test_a_share_of_the_variance_keeps_the_fewest_axes_that_reach_it(seed: int, share: float) -> None:
    x = mixed_columns(seed)
    whole, part = through(x, Decorrelate()), through(x, Decorrelate(variance=share))
    variances = whole.var(axis=0)
    kept = int((part != 0).any(axis=0).sum())
    np.testing.assert_array_equal(part[:, :kept], whole[:, :kept])
    assert part.shape == whole.shape
    assert variances[:kept].sum() >= (share - 1e-5) * variances.sum()
    assert variances[: kept - 1].sum() < (share + 1e-5) * variances.sum()


@over_white
@FAST
@given(seed=SEEDS, repeat=st.booleans())
def test_white_rows_have_mean_0_and_the_identity_as_covariance(
    white: Whiten, seed: int, repeat: bool
) -> None:
    x = mixed_columns(seed)
    x = x[np.random.default_rng(seed).integers(len(x), size=300)] if repeat else x
    out = through(x, white)
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(covariance(out), np.eye(x.shape[1]), atol=2e-3)


@FAST
@given(seed=SEEDS)
def test_pca_whitening_is_scikit_learns(seed: int) -> None:
    x = mixed_columns(seed)
    expected = PCA(whiten=True, svd_solver="full").fit_transform(x.astype(np.float64))
    expected *= np.sqrt(len(x) / (len(x) - 1))  # it divides by n - 1
    np.testing.assert_allclose(through(x, WHITE[0]), expected, atol=5e-3)


@FAST
@given(seed=SEEDS)
def test_zca_is_the_symmetric_whitening_and_nearest_to_the_centred_rows(seed: int) -> None:
    """No rotation of white rows lies nearer to the centred ones (Kessy, Lewin & Strimmer 2018)."""
    x = mixed_columns(seed)
    transform = fitted(x, WHITE[1])
    matrix = transform.state_dict()["steps.0.matrix"].double().numpy()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6 * np.abs(matrix).max())
    centred = x - x.mean(axis=0, dtype=np.float64)
    white = centred @ matrix
    distance = np.square(white - centred).sum()
    rng = np.random.default_rng(seed)
    for _ in range(5):
        turned, _ = np.linalg.qr(rng.normal(size=matrix.shape))
        assert distance <= np.square(white @ turned - centred).sum() * (1 + 1e-9)


@over_white
def test_white_images_and_their_constant_pixel(white: Whiten) -> None:
    """Bytes and numbers give the same; ZCA's stay images; a constant pixel becomes 0 whatever comes later."""
    x = pixels()
    out = through(x, white)
    np.testing.assert_allclose(out, through((x / 255).astype(np.float32), white), atol=1e-3)
    assert out.shape == ((300, 2, 3, 4) if white.method == "zca" else (300, 24))
    expected = np.eye(24)
    dead = 0 if white.method == "zca" else 23
    expected[dead, dead] = 0
    np.testing.assert_allclose(covariance(out), expected, atol=1e-3)
    other = x.copy()
    other[:, 0, 0, 0] = 200
    np.testing.assert_array_equal(fitted(x, white)(torch.from_numpy(other)).double().numpy(), out)


@over_white
def test_a_direction_without_variance_becomes_0_and_eps_keeps_it_small(white: Whiten) -> None:
    """A copied column leaves one direction empty: noise is not blown up into it."""
    x = mixed_columns(3)
    x[:, 4] = x[:, 1] * 2
    for eps in (0.0, 1e-6):
        out = through(x, white.model_copy(update={"eps": eps}))
        assert np.isfinite(out).all()
        ranks = np.sort(np.linalg.eigvalsh(covariance(out)))
        np.testing.assert_allclose(ranks, [0, 1, 1, 1, 1, 1], atol=5e-3)


@FAST
@given(seed=SEEDS, num_rows=st.integers(10, 80))
def test_the_automatic_shrinkage_is_ledoit_and_wolfs(seed: int, num_rows: int) -> None:
    x = mixed_columns(seed, num_rows, 12)
    rows = Rows64(x, ())
    expected = ledoit_wolf_shrinkage(x.astype(np.float64))
    assert shrinkage_of(rows, spread_of(rows)) == pytest.approx(expected, rel=1e-6)


@over_white
def test_whole_shrinkage_only_divides_by_the_mean_variance(white: Whiten) -> None:
    x = mixed_columns(5, num_rows=4)
    whole = white.model_copy(update={"shrinkage": 1.0})
    matrix = fitted(x, whole).state_dict()["steps.0.matrix"].double().numpy()
    expected = np.eye(6) / x.astype(np.float64).var(axis=0).mean()
    np.testing.assert_allclose(matrix @ matrix.T, expected, atol=1e-5 * expected.max())


def test_chains_go_through_what_was_fitted_before() -> None:
    """Whitening after standardising is that of the correlation matrix; gaps are filled before they are mixed."""
    x = mixed_columns(7)
    x[::7, 2] = np.nan
    out = through(x, Impute(indicator=False), Standardize(), Whiten(eps=0.0))
    np.testing.assert_allclose(covariance(out), np.eye(6), atol=1e-3)
    images = through(pixels(), PerChannelCenter(), Decorrelate(components=5), Standardize())
    np.testing.assert_allclose(covariance(images), np.eye(5), atol=1e-3)


@pytest.mark.parametrize("step", [Decorrelate(), *WHITE], ids=str)
def test_a_fit_has_the_same_bits_on_any_number_of_threads(step: Preprocess) -> None:
    x = mixed_columns(0, num_rows=500, num_columns=160)
    states = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            states.append(fitted(x, step).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@FAST
@given(seed=SEEDS, noise=st.floats(0, 0.005), num=st.integers(3, 30))
def test_columns_that_the_others_determine_are_found_and_no_other(seed: int, noise: float, num: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(400, num)).astype(np.float32)
    assert not dependent_columns(x).any()
    x[:, 2] = x[:, 0] - x[:, 1] + noise * rng.normal(size=400)
    x[rng.random(400) < 0.05, -1] = np.nan
    expected = np.arange(num) < 3
    if num > 3:
        np.testing.assert_array_equal(dependent_columns(x), expected)
    assert not dependent_columns(x[: 2 * num]).any()


def test_copies_constants_and_wide_tables_are_left_to_others() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 4)).astype(np.float32)
    x[:, 3], x[:, 1] = x[:, 0], 5
    assert not dependent_columns(x).any()
    wide = rng.normal(size=(4000, 501)).astype(np.float32)
    wide[:, 1] = wide[:, 0] * 1.5
    assert not dependent_columns(wide).any()
    assert dependent_columns(wide[:, :500]).sum() == 2


def test_the_dataset_of_a_case_is_left_as_it_is() -> None:
    """Fitting changes no row."""
    x = mixed_columns(1)
    data = Dataset(x.copy(), x[:, :1], np.arange(len(x)), "table", tuple("abcdef"))
    fitted(data.x, Whiten())
    np.testing.assert_array_equal(data.x, x)
