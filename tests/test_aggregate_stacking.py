"""Laws of fitted weights: nothing on the simplex is better, and held-out truths are not looked at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls
from torch import Tensor

from ensemble_svc.aggregate.quadratic import least_nonnegative
from ensemble_svc.aggregate.stacking import Blend, by_likelihood, by_squared_error, out_of_fold
from ensemble_svc.errors import EnsembleError

law = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
members = st.integers(1, 8)
rows = st.integers(1, 60)


def likelihoods(seed: int, num_members: int, num_rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_members, num_rows, generator=generator, dtype=torch.float64) * 3


def means(seed: int, num_members: int, num_rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(num_rows, 2, generator=generator, dtype=torch.float64)
    shared, own = torch.randn(2, num_members, num_rows, 2, generator=generator, dtype=torch.float64)
    return target + shared[:1] + own * torch.arange(1, num_members + 1)[:, None, None] / num_members, target


def on_simplex(seed: int, num_members: int, count: int = 200) -> Tensor:
    drawn = -torch.rand(count, num_members, generator=torch.Generator().manual_seed(seed)).double().log()
    corners = torch.eye(num_members, dtype=torch.float64)
    return torch.cat([drawn / drawn.sum(1, keepdim=True), corners, corners.mean(0, keepdim=True)])


def nll(weights: Tensor, log_likelihood: Tensor) -> float:
    return -(weights.log()[:, None] + log_likelihood).logsumexp(0).mean().item()


@law
@given(seeds, members, rows)
def test_no_weights_have_a_greater_likelihood(seed, num_members, num_rows) -> None:
    log_likelihood = likelihoods(seed, num_members, num_rows)
    blend = by_likelihood(log_likelihood)
    assert blend.gap < 1e-5
    assert sum(blend.weights) == pytest.approx(1)
    assert min(blend.weights) >= 0
    assert blend.loss == pytest.approx(nll(torch.tensor(blend.weights), log_likelihood))
    for weights in on_simplex(seed, num_members):
        assert blend.loss <= nll(weights, log_likelihood) + blend.gap + 1e-12


@law
@given(seeds, st.integers(2, 6), st.integers(5, 60))
def test_the_likelihood_is_that_of_expectation_maximisation(seed, num_members, num_rows) -> None:
    """An independent solver of the same problem, run for long: Dempster, Laird & Rubin 1977."""
    log_likelihood = likelihoods(seed, num_members, num_rows)
    likelihood = (log_likelihood - log_likelihood.amax(0)).exp()
    weights = torch.full((num_members,), 1 / num_members, dtype=torch.float64)
    for _ in range(3000):
        weights = weights * (likelihood / (weights @ likelihood)).mean(1)
    assert by_likelihood(log_likelihood).loss == pytest.approx(nll(weights, log_likelihood), abs=1e-3)
    assert by_likelihood(log_likelihood).loss <= nll(weights, log_likelihood) + 1e-7


@law
@given(seeds, members, rows, st.floats(0.1, 50))
def test_a_prior_of_rows_is_rows_that_one_member_explains_alone(
    seed, num_members, num_rows, prior_rows
) -> None:
    log_likelihood = likelihoods(seed, num_members, num_rows)
    blend = by_likelihood(log_likelihood, prior_rows=prior_rows)

    def objective(weights: Tensor) -> float:
        seen = -num_rows * nll(weights, log_likelihood)
        return -(seen + prior_rows * weights.log().mean().item()) / (num_rows + prior_rows)

    assert min(blend.weights) > 0
    best = objective(torch.tensor(blend.weights, dtype=torch.float64))
    for weights in on_simplex(seed, num_members):
        if weights.min() > 0:
            assert best <= objective(weights) + blend.gap + 1e-9


def test_a_strong_pull_makes_the_weights_equal() -> None:
    log_likelihood, (mean, target) = likelihoods(0, 4, 30), means(0, 4, 30)
    assert by_likelihood(log_likelihood, prior_rows=1e9).weights == pytest.approx([0.25] * 4, abs=1e-6)
    assert by_squared_error(mean, target, ridge=1e9).weights == pytest.approx([0.25] * 4, abs=1e-6)


@law
@given(seeds, members, rows)
def test_no_weights_have_a_smaller_squared_error(seed, num_members, num_rows) -> None:
    mean, target = means(seed, num_members, num_rows)
    blend = by_squared_error(mean, target)

    def error(weights: Tensor) -> float:
        return ((weights[:, None, None] * mean).sum(0) - target).square().mean().item()

    assert sum(blend.weights) == pytest.approx(1)
    assert blend.loss == pytest.approx(error(torch.tensor(blend.weights)), rel=1e-6, abs=1e-12)
    for weights in on_simplex(seed, num_members):
        assert blend.loss <= error(weights) * (1 + 1e-9) + 1e-12


def test_the_weights_are_those_of_a_general_solver() -> None:
    mean, target = means(1, 6, 200)
    result = minimize(
        lambda w: ((np.tensordot(w, mean.numpy(), 1) - target.numpy()) ** 2).mean(),
        np.full(6, 1 / 6),
        bounds=[(0, 1)] * 6,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    blend = by_squared_error(mean, target)
    assert blend.weights == pytest.approx(result.x, abs=1e-4)
    assert blend.loss <= result.fun + 1e-12


@law
@given(seeds, st.integers(1, 8))
def test_the_quadratic_is_scipys(seed, size) -> None:
    generator = np.random.default_rng(seed)
    left, right = generator.normal(size=(size + 4, size)), generator.normal(size=size + 4)
    ours = least_nonnegative(torch.tensor(left.T @ left), torch.tensor(left.T @ right))
    np.testing.assert_allclose(ours.numpy(), nnls(left, right)[0], atol=1e-7)


def test_copies_and_rows_that_nobody_explains_leave_a_solution() -> None:
    log_likelihood = likelihoods(2, 1, 20).expand(3, -1)
    assert by_likelihood(log_likelihood).loss == pytest.approx(-log_likelihood[0].mean().item())
    mean, target = means(2, 1, 20)
    alone = by_squared_error(mean, target).loss
    assert by_squared_error(mean.expand(3, -1, -1), target).loss == pytest.approx(alone)
    assert by_squared_error(target.expand(3, -1, -1), target).weights == (1 / 3,) * 3
    some = likelihoods(3, 3, 20)
    with_one = torch.cat([some, torch.full((3, 1), -torch.inf)], dim=1)
    assert by_likelihood(with_one).weights == pytest.approx(by_likelihood(some).weights, abs=1e-4)
    assert by_likelihood(with_one).loss == torch.inf


@law
@given(seeds, st.integers(1, 5), st.integers(2, 4))
def test_a_rows_weights_do_not_depend_on_its_own_fold(seed, num_members, num_folds) -> None:
    num_rows = 8 * num_folds
    log_likelihood = likelihoods(seed, num_members, num_rows)
    fold_N = torch.arange(num_rows) % num_folds
    weights_KN, blends = out_of_fold(lambda mask: by_likelihood(log_likelihood[:, mask]), fold_N)
    assert weights_KN.shape == (num_members, num_rows)
    torch.testing.assert_close(weights_KN.sum(0), torch.ones(num_rows).double())
    other = log_likelihood.clone()
    other[:, fold_N == 0] = likelihoods(seed + 1, num_members, 8)
    again, _ = out_of_fold(lambda mask: by_likelihood(other[:, mask]), fold_N)
    assert torch.equal(again[:, fold_N == 0], weights_KN[:, fold_N == 0])
    for fold, blend in enumerate(blends):
        assert blend == by_likelihood(log_likelihood[:, fold_N != fold])


def test_bad_input_is_refused() -> None:
    mean, target = means(0, 3, 5)
    for wrong in (
        lambda: by_likelihood(torch.zeros(3)),
        lambda: by_likelihood(torch.zeros(3, 4), prior_rows=-1),
        lambda: by_squared_error(mean, target[:, :1]),
        lambda: by_squared_error(mean, target, ridge=torch.inf),
        lambda: out_of_fold(lambda mask: Blend((1.0,), 0, 0), torch.zeros(4, dtype=torch.int64)),
        lambda: out_of_fold(lambda mask: Blend((1.0,), 0, 0), torch.tensor([0, 2, 2])),
    ):
        with pytest.raises(EnsembleError):
            wrong()
