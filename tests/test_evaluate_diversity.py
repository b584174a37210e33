"""Laws of diversity and its decompositions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.diversity import (
    ambiguity,
    bias_variance,
    bias_variance_classes,
    disagreement,
    distance,
    error_correlation,
    mean_over_pairs,
    q_statistic,
)

law = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 6), st.integers(1, 40))


def means(seed: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(size[1], 2, generator=generator, dtype=torch.float64) * 5
    return target + torch.randn(*size, 2, generator=generator, dtype=torch.float64), target


def classes(seed: int, size: tuple[int, int], num_classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.randint(num_classes, size, generator=generator)
    return predicted, torch.randint(num_classes, size[1:], generator=generator)


@law
@given(seeds, sizes)
def test_pairwise_measures_are_their_definitions(seed, size) -> None:
    predicted, target = classes(seed, size)
    mean, numbers = means(seed, size)
    correct = predicted == target
    tables = disagreement(predicted), q_statistic(correct), distance(mean)
    for j in range(size[0]):
        for k in range(size[0]):
            assert tables[0][j, k] == pytest.approx((predicted[j] != predicted[k]).double().mean().item())
            both, neither = (correct[j] & correct[k]).sum(), (~correct[j] & ~correct[k]).sum()
            only_j, only_k = (correct[j] & ~correct[k]).sum(), (~correct[j] & correct[k]).sum()
            q = (both * neither - only_j * only_k) / (both * neither + only_j * only_k)
            assert tables[1][j, k].item() == pytest.approx(q.item(), nan_ok=True)
            assert tables[2][j, k] == pytest.approx((mean[j] - mean[k]).square().mean().item())
    errors = mean[..., 0] - numbers[:, 0]
    if size[1] > 2:
        ours = error_correlation(errors)
        np.testing.assert_allclose(ours, np.atleast_2d(np.corrcoef(errors.numpy())), atol=1e-9)


def test_q_says_how_errors_go_together() -> None:
    right = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0]], dtype=torch.bool)
    q = q_statistic(right)
    assert (q[0, 1], q[0, 2], q[0, 3]) == (1, -1, 0)
    assert q_statistic(torch.ones(2, 3, dtype=torch.bool)).isnan().all()
    assert mean_over_pairs(torch.tensor([[9.0, 1, torch.nan], [9, 9, 3], [9, 9, 9]])) == 2
    assert np.isnan(mean_over_pairs(torch.ones(1, 1)))


@law
@given(seeds, sizes)
def test_the_ensembles_error_is_the_members_less_their_ambiguity(seed, size) -> None:
    mean, target = means(seed, size)
    weights = torch.rand(size[0], generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.01
    for weights_K in (None, weights / weights.sum()):
        parts = ambiguity(mean, target, weights_K)
        assert parts.ensemble == pytest.approx(parts.members - parts.ambiguity, abs=1e-12)
        share = torch.full((size[0],), 1 / size[0], dtype=torch.float64) if weights_K is None else weights_K
        pooled = (share[:, None, None] * mean).sum(0)
        assert parts.ensemble == pytest.approx((pooled - target).square().mean().item(), rel=1e-4)
        assert parts.ambiguity >= 0


@law
@given(seeds, sizes)
def test_equal_weights_ambiguity_is_half_the_mean_distance_of_pairs(seed, size) -> None:
    mean, target = means(seed, size)
    assert ambiguity(mean, target).ambiguity == pytest.approx(distance(mean).mean().item() / 2, abs=1e-12)


@law
@given(seeds, sizes)
def test_a_members_error_is_bias_and_variance(seed, size) -> None:
    mean, target = means(seed, size)
    parts = bias_variance(mean, target)
    assert parts.error == pytest.approx(parts.bias + parts.variance)
    assert parts.variance == pytest.approx(mean.var(dim=0, correction=0).mean().item(), abs=1e-12)


@law
@given(seeds, sizes)
def test_a_members_error_rate_is_the_majoritys_and_the_net_variance(seed, size) -> None:
    """Domingos' variance, by hand: departures where the majority is right, less repairs where it is wrong."""
    predicted, target = classes(seed, size)
    parts = bias_variance_classes(predicted, target)
    majority = torch.nn.functional.one_hot(predicted, 3).sum(0).argmax(-1)
    unbiased = majority == target
    departures = ((predicted != target) & unbiased).double().mean()
    repairs = ((predicted == target) & ~unbiased).double().mean()
    assert parts.bias == pytest.approx((~unbiased).double().mean().item())
    assert parts.variance == pytest.approx((departures - repairs).item(), abs=1e-12)
    assert parts.error == pytest.approx((predicted != target).double().mean().item())


def test_bad_input_is_refused() -> None:
    mean, target = means(0, (2, 3))
    for wrong in (
        lambda: disagreement(torch.zeros(3)),
        lambda: distance(mean[0]),
        lambda: q_statistic(torch.zeros(0, 3)),
        lambda: error_correlation(mean),
        lambda: ambiguity(mean, target[:, :1]),
        lambda: ambiguity(mean, target, torch.ones(2)),
        lambda: bias_variance_classes(torch.zeros(2, 3), torch.zeros(4)),
    ):
        with pytest.raises(EnsembleError):
            wrong()
