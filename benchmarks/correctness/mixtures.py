"""Mixtures of distributions against numerical integration and their definitions."""

from __future__ import annotations

import torch
from scipy.integrate import quad
from scipy.stats import norm

from benchmarks.correctness.comparison import Cases, Comparison, classes, numbers
from ensemble_svc.aggregate.predictions import average, mix_gaussians
from ensemble_svc.evaluate.density import crps_gaussian, crps_mixture
from ensemble_svc.evaluate.diversity import ambiguity


def mixtures(draw: torch.Generator) -> Cases:
    """Mean and variance of a mixture by numerical integration."""
    for _ in range(20):
        mean, log_variance, _ = numbers(draw, rows=1)
        ours_mean, ours_variance = mix_gaussians(mean, log_variance)
        centre, std = mean[:, 0, 0].numpy(), (0.5 * log_variance[:, 0, 0]).exp().numpy()
        ends = (float((centre - 12 * std).min()), float((centre + 12 * std).max()))

        def moment(power: int, ends=ends, centre=centre, std=std) -> float:
            value = quad(
                lambda t: t**power * norm.pdf(t, centre, std).mean(), *ends, limit=500, points=list(centre)
            )
            return float(value[0])

        yield abs(float(ours_mean) - moment(1))
        yield abs(float(ours_variance.exp()) - (moment(2) - moment(1) ** 2))


def crps(draw: torch.Generator) -> Cases:
    """The integral of the squared distance of the distribution functions."""
    for _ in range(10):
        mean, log_variance, target = numbers(draw, members=3, rows=1)
        centre, std, at = mean[:, 0, 0].numpy(), (0.5 * log_variance[:, 0, 0]).exp().numpy(), float(target)
        low, high = float((centre - 12 * std).min()), float((centre + 12 * std).max())

        def gap(t: float, which: slice = slice(None), centre=centre, std=std, at=at) -> float:
            return float((norm.cdf(t, centre[which], std[which]).mean() - (t >= at)) ** 2)

        ends = (min(low, at), max(high, at))
        whole = quad(gap, *ends, limit=1000, points=[at])[0]
        yield abs(float(crps_mixture(mean, log_variance, target)) - whole)
        one = quad(lambda t: gap(t, slice(0, 1)), *ends, limit=1000, points=[at])[0]
        yield abs(float(crps_gaussian(mean[0], log_variance[0], target)) - one)


def decomposition(draw: torch.Generator) -> Cases:
    """Ensemble error = mean member error - ambiguity (Krogh & Vedelsby 1995), each by its definition."""
    for _ in range(20):
        mean, _, target = numbers(draw)
        found = ambiguity(mean, target)
        ensemble = ((mean.mean(0) - target) ** 2).mean()
        members = ((mean - target) ** 2).mean()
        spread = ((mean - mean.mean(0)) ** 2).mean()
        yield abs(float(members - spread - ensemble))
        yield abs(found.ambiguity - float(spread))


def mixture_of_classes(draw: torch.Generator) -> Cases:
    for _ in range(20):
        log_probs = torch.stack([classes(draw)[0] for _ in range(6)])
        yield float((average(log_probs).exp() - log_probs.exp().mean(0)).abs().max())


COMPARISONS: tuple[Comparison, ...] = (
    Comparison("mixture of Gaussians: mean, variance", "numerical integration", mixtures, 1e-7),
    Comparison("mixture of class probabilities", "mean of the exponentials", mixture_of_classes, 1e-14),
    Comparison("CRPS of a Gaussian and of a mixture", "numerical integration", crps, 1e-6),
    Comparison("ambiguity decomposition", "its definition", decomposition, 1e-12),
)
