"""Laws of the blend in log space."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from ensemble_svc.aggregate.calibration.temperature import fit_after
from ensemble_svc.aggregate.loglinear import LogLinear, fit_log_linear
from ensemble_svc.aggregate.pooling import geometric
from ensemble_svc.errors import EnsembleError

law = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def classifiers(seed: int, num_members: int, num_rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(3, (num_rows,), generator=generator)
    logits = torch.randn(num_members, num_rows, 3, generator=generator, dtype=torch.float64) * 2
    strength = torch.rand(num_members, 1, 1, generator=generator) * 2
    return (logits + strength * torch.nn.functional.one_hot(target, 3)).log_softmax(-1), target


def nll(log_probs: Tensor, target: Tensor) -> float:
    return -log_probs.gather(1, target[:, None]).mean().item()


@law
@given(seeds, st.integers(1, 5), st.integers(1, 60))
def test_it_is_never_worse_than_the_geometric_mean_on_its_rows(seed, num_members, num_rows) -> None:
    log_probs, target = classifiers(seed, num_members, num_rows)
    blend = fit_log_linear(log_probs, target)
    assert nll(blend.apply(log_probs), target) == pytest.approx(blend.loss)
    assert blend.loss <= nll(geometric(log_probs), target) + 1e-9


@law
@given(seeds, st.integers(1, 4), st.integers(5, 60), st.floats(0.1, 10))
def test_the_exponents_are_those_of_a_general_solver(seed, num_members, num_rows, pull_rows) -> None:
    log_probs, target = classifiers(seed, num_members, num_rows)

    def objective(exponents: np.ndarray) -> float:
        blend = LogLinear(tuple(exponents.tolist()), 0.0).apply(log_probs)
        pull = pull_rows / num_rows * ((exponents - 1 / num_members) ** 2).sum()
        return nll(blend, target) + pull

    found = minimize(objective, np.full(num_members, 1 / num_members), method="BFGS", options={"gtol": 1e-8})
    ours = np.array(fit_log_linear(log_probs, target, pull_rows=pull_rows).exponents)
    assert objective(ours) <= found.fun + 1e-9
    np.testing.assert_allclose(ours, found.x, atol=1e-3)


def test_one_members_exponent_is_its_sharpness() -> None:
    log_probs, target = classifiers(0, 1, 2000)
    exponent = fit_log_linear(log_probs, target, pull_rows=1e-9).exponents[0]
    assert exponent == pytest.approx(1 / fit_after(log_probs[0], target).value, rel=1e-4)


def test_copies_share_and_a_strong_pull_keeps_the_geometric_mean() -> None:
    log_probs, target = classifiers(1, 3, 100)
    first, second = fit_log_linear(log_probs[:1].expand(2, -1, -1), target).exponents
    assert first == pytest.approx(second)
    assert fit_log_linear(log_probs, target, pull_rows=1e12).exponents == pytest.approx([1 / 3] * 3)


def test_right_rows_and_impossible_truths_leave_finite_exponents() -> None:
    certain = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).log()
    for target in (torch.tensor([0, 1]), torch.tensor([1, 0])):
        blend = fit_log_linear(certain, target)
        assert torch.tensor(blend.exponents).isfinite().all()
        assert not blend.apply(certain).isnan().any()


def test_bad_input_is_refused() -> None:
    log_probs, target = classifiers(0, 2, 5)
    for wrong in (
        lambda: fit_log_linear(log_probs, target[:-1]),
        lambda: fit_log_linear(log_probs, target, pull_rows=0),
        lambda: fit_log_linear(log_probs * 2, target),
        lambda: LogLinear((1.0,), 0.0).apply(log_probs),
    ):
        with pytest.raises(EnsembleError):
            wrong()
