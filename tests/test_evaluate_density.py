"""Laws of CRPS, quantiles, intervals and pinball loss, against integrals done numerically."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.metrics import mean_pinball_loss
from torch import Tensor

from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.density import (
    crps_gaussian,
    crps_mixture,
    mixture_quantiles,
    pinball,
    score_intervals,
)

law = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**32 - 1)
members = st.integers(1, 5)
rows = st.integers(1, 30)


def mixture(seed: int, num_members: int, num_rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean, log_variance = torch.randn(2, num_members, num_rows, 2, generator=generator, dtype=torch.float64)
    target = torch.randn(num_rows, 2, generator=generator, dtype=torch.float64) * 2
    weights = torch.rand(num_members, generator=generator, dtype=torch.float64) + 0.01
    return mean * 2, log_variance, target, weights / weights.sum()


@settings(max_examples=10, deadline=None)
@given(seeds, members)
def test_the_crps_of_a_mixture_is_the_integral(seed, num_members) -> None:
    mean, log_variance, target, weights = mixture(seed, num_members, 1)
    deviation, y = (0.5 * log_variance).exp(), target[0, 0].item()

    def below(x: float) -> float:
        each = norm.cdf(x, mean[:, 0, 0], deviation[:, 0, 0])
        return float((weights.numpy() * each).sum())

    left = quad(lambda x: below(x) ** 2, -40, y, limit=200)[0]
    right = quad(lambda x: (1 - below(x)) ** 2, y, 40, limit=200)[0]
    ours = crps_mixture(mean, log_variance, target, weights)[0, 0].item()
    assert ours == pytest.approx(left + right, abs=1e-6)


@law
@given(seeds, members, rows)
def test_a_mixture_of_copies_is_the_gaussian(seed, num_members, num_rows) -> None:
    mean, log_variance, target, _ = mixture(seed, 1, num_rows)
    copies = crps_mixture(mean.expand(num_members, -1, -1), log_variance.expand(num_members, -1, -1), target)
    torch.testing.assert_close(copies, crps_gaussian(mean[0], log_variance[0], target))


@law
@given(seeds, rows, st.floats(0.1, 10))
def test_the_crps_scales_with_the_unit_and_ends_as_the_absolute_error(seed, num_rows, unit) -> None:
    mean, log_variance, target, _ = mixture(seed, 1, num_rows)
    whole = crps_gaussian(mean[0], log_variance[0], target)
    scaled = crps_gaussian(mean[0] * unit, log_variance[0] + 2 * math.log(unit), target * unit)
    torch.testing.assert_close(scaled, whole * unit)
    certain = crps_gaussian(mean[0], log_variance[0] * 0 - 5000, target)
    torch.testing.assert_close(certain, (mean[0] - target).abs())
    assert crps_gaussian(mean[0], log_variance[0] * 0 - 5000, mean[0]).abs().max() == 0


@law
@given(seeds, members, rows)
def test_a_quantile_has_its_probability_below_it(seed, num_members, num_rows) -> None:
    mean, log_variance, _, weights = mixture(seed, num_members, num_rows)
    levels = torch.tensor([0.01, 0.5, 0.9], dtype=torch.float64)
    quantile = mixture_quantiles(mean, log_variance, levels, weights)
    z = (quantile[:, None] - mean) / (0.5 * log_variance).exp()
    below = (weights[:, None, None] * torch.special.ndtr(z)).sum(1)
    torch.testing.assert_close(below, levels[:, None, None].expand_as(below), atol=1e-9, rtol=0)


def test_the_mean_pinball_over_all_levels_is_half_the_crps() -> None:
    mean, log_variance, target, weights = mixture(3, 3, 8)
    levels = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    quantile = mixture_quantiles(mean, log_variance, levels, weights)
    half = crps_mixture(mean, log_variance, target, weights).mean().item() / 2
    assert pinball(quantile, levels, target).mean().item() == pytest.approx(half, rel=1e-3)


@law
@given(seeds, rows)
def test_the_pinball_loss_is_scikit_learns(seed, num_rows) -> None:
    mean, _, target, _ = mixture(seed, 3, num_rows)
    levels = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    peers = [mean_pinball_loss(target, mean[q], alpha=levels[q].item()) for q in range(3)]
    assert pinball(mean, levels, target).tolist() == pytest.approx(peers)


@law
@given(seeds, rows)
def test_intervals_are_scored_by_their_definition(seed, num_rows) -> None:
    mean, _, target, _ = mixture(seed, 2, num_rows)
    low, high = mean.amin(0), mean.amax(0)
    found = score_intervals(low, high, target, alpha=0.2)
    below, above = (low - target).clamp(min=0), (target - high).clamp(min=0)
    assert found.width == pytest.approx((high - low).mean().item())
    assert found.coverage == pytest.approx(((below == 0) & (above == 0)).double().mean().item())
    assert found.score == pytest.approx(found.width + 10 * (below + above).mean().item())


def test_the_central_interval_of_the_true_distribution_is_covered_and_scores_best() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(100_000, 1, generator=generator, dtype=torch.float64)
    scores = {}
    for deviation in (0.7, 1.0, 1.4):
        half = torch.full_like(target, norm.ppf(0.95) * deviation)
        scores[deviation] = score_intervals(-half, half, target, alpha=0.1)
    assert scores[1.0].coverage == pytest.approx(0.9, abs=0.005)
    assert scores[1.0].score == min(found.score for found in scores.values())


def test_bad_input_is_refused() -> None:
    mean, log_variance, target, _ = mixture(0, 2, 3)
    for wrong in (
        lambda: crps_gaussian(mean[0], log_variance[0], target[:, :1]),
        lambda: crps_mixture(mean, log_variance, target, torch.ones(2)),
        lambda: crps_mixture(mean, log_variance[:1], target),
        lambda: mixture_quantiles(mean, log_variance, torch.tensor([0.0])),
        lambda: score_intervals(target, target - 1, target, alpha=0.1),
        lambda: score_intervals(target, target, target, alpha=0),
        lambda: pinball(mean, torch.zeros(3), target),
    ):
        with pytest.raises(EnsembleError):
            wrong()
