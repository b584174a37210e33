"""Laws of gains over rivals, of the forecast of more members, and of deep-ensemble equivalents."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_svc.aggregate.predictions import combine
from ensemble_svc.aggregate.subsets import mixtures
from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.curve import size_curve
from ensemble_svc.evaluate.equivalents import equivalents
from ensemble_svc.evaluate.forecast import Forecast, fit_curve, forecast
from ensemble_svc.evaluate.gain import gain_over
from ensemble_svc.evaluate.metrics import METRICS, measure
from ensemble_svc.evaluate.summary import summarize
from ensemble_svc.spec.job import EvaluateSpec

law = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def regressors(seed: int, num_members: int, num_rows: int, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    """Means that share an error and have one of their own."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(num_rows, 1, generator=generator, dtype=torch.float64)
    own = torch.randn(num_members, num_rows, 1, generator=generator, dtype=torch.float64) * noise
    return shared + own, torch.zeros(num_rows, 1, dtype=torch.float64)


def classifiers(seed: int, num_members: int, num_rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(3, (num_rows,), generator=generator)
    logits = torch.randn(num_members, num_rows, 3, generator=generator, dtype=torch.float64) * 2
    return (logits + 2 * torch.nn.functional.one_hot(target, 3)).log_softmax(-1), target


@law
@given(seeds, st.integers(2, 5))
def test_the_gain_over_the_members_is_that_of_the_summary(seed, num_members) -> None:
    log_probs, target = classifiers(seed, num_members, 50)
    ensemble = combine({"log_probs": log_probs})
    each = [{"log_probs": member} for member in log_probs]
    found = gain_over(
        "classification", ensemble, {"all": each, "first": each[:1]}, target, resamples=100, seed=3
    )
    spec = EvaluateSpec(resamples=100)
    table = summarize("classification", {"log_probs": log_probs}, ensemble, target, spec=spec, best=0, seed=3)
    for name, gain in table["gain"]["over_mean_member"].items():
        assert found["all"][name] == pytest.approx(gain)
        assert found["first"][name] == pytest.approx(table["gain"]["over_best_member"][name])


@law
@given(seeds)
def test_a_prediction_gains_nothing_over_itself_and_less_is_minus_more(seed) -> None:
    log_probs, target = classifiers(seed, 2, 40)
    one, two = ({"log_probs": member} for member in log_probs)
    rivals = {"self": [one], "other": [two]}
    ours = gain_over("classification", one, rivals, target, resamples=100, seed=0)
    theirs = gain_over("classification", two, {"us": [one]}, target, resamples=100, seed=0)["us"]
    for name in METRICS:
        if name in theirs:
            assert ours["self"][name] == {"estimate": 0, "low": 0, "high": 0}
            assert ours["other"][name]["estimate"] == pytest.approx(-theirs[name]["estimate"])
            assert ours["other"][name]["low"] == pytest.approx(-theirs[name]["high"])


def test_a_rival_that_does_not_fit_is_named() -> None:
    log_probs, target = classifiers(0, 2, 10)
    ours = {"log_probs": log_probs[0]}
    short = {"log_probs": log_probs[1][:5]}
    with pytest.raises(EnsembleError, match="'single', prediction 0: log_probs has shape"):
        gain_over("classification", ours, {"single": [short]}, target, seed=0)
    with pytest.raises(EnsembleError, match="'none' has no predictions"):
        gain_over("classification", ours, {"none": []}, target, seed=0)
    bare = {"mean": torch.zeros(4, 1)}
    wide = bare | {"log_variance": torch.zeros(4, 1)}
    found = gain_over("regression", wide, {"bare": [bare]}, torch.ones(4, 1), resamples=100, seed=0)
    assert set(found["bare"]) == {"rmse", "mae"}  # what both allow


@law
@given(seeds, st.integers(2, 9))
def test_a_curve_that_is_one_is_found_exactly(seed, sizes) -> None:
    limit, slope = np.random.default_rng(seed).normal(size=2)
    found = fit_curve(range(1, sizes + 1), [limit + slope / k for k in range(1, sizes + 1)])
    assert found == pytest.approx((limit, slope), abs=1e-9)


@law
@given(seeds, st.integers(2, 9))
def test_the_fit_is_numpys_weighted_least_squares(seed, sizes) -> None:
    values = np.random.default_rng(seed).normal(size=sizes)
    k = np.arange(1, sizes + 1)
    slope, limit = np.polyfit(1 / k, values, 1, w=np.sqrt(k))
    assert fit_curve(k.tolist(), values.tolist()) == pytest.approx((limit, slope), abs=1e-8)


def brier_like(num_members: int, seed: int, num_rows: int = 400) -> Forecast:
    log_probs, target = classifiers(seed, num_members, num_rows)
    return forecast("classification", {"log_probs": log_probs}, target, mixtures, name="brier", seed=seed)


def test_the_brier_scores_forecast_is_the_ambiguity_decomposition() -> None:
    """Over all subsets of a size the mean Brier score is a + b / k exactly, with b the members' mean ambiguity."""
    log_probs, target = classifiers(0, 4, 100)
    members = {"log_probs": log_probs}
    found = forecast("classification", members, target, mixtures, name="brier", seed=0, draws=20)
    truth = torch.nn.functional.one_hot(target, 3)
    probs = log_probs.exp()
    single = (probs - truth).square().sum(-1).mean().item()
    spread = probs.var(dim=0, correction=1).sum(-1).mean().item()
    assert found.slope == pytest.approx(spread)
    assert found.limit == pytest.approx(single - spread)
    whole = measure("classification", combine(members), target, names=["brier"])["brier"]
    assert found.at(4) == pytest.approx(whole)
    assert found.more(0).estimate == 0
    assert found.more(4).estimate == pytest.approx(-spread / 8)
    assert found.more(10**9).estimate == pytest.approx(found.limit - found.at(4))


def test_the_standard_error_is_the_spread_over_other_members_and_rows() -> None:
    """40 data sets of other members and rows each: the errors told against the forecasts' real spread."""
    found = [brier_like(8, seed, num_rows=100) for seed in range(40)]
    for value, error in (("slope", "slope_error"), ("limit", "limit_error")):
        spread = np.std([getattr(f, value) for f in found], ddof=1)
        told = math.sqrt(np.mean([getattr(f, error) ** 2 for f in found]))
        assert 0.7 < told / spread < 2.0


def test_forecasts_come_true_as_often_as_their_errors_say() -> None:
    """From 8 members to the 8 next, 25 times: what came less what was said, in units of the error told."""
    for name in ("brier", "nll"):
        off = []
        for seed in range(25):
            log_probs, target = classifiers(seed, 16, 200)
            said = forecast(
                "classification", {"log_probs": log_probs[:8]}, target, mixtures, name=name, seed=0
            ).more(8)
            now, then = (
                measure("classification", combine({"log_probs": log_probs[:k]}), target, names=[name])[name]
                for k in (8, 16)
            )
            assert said.estimate < 0
            off.append((then - now - said.estimate) / said.error)
        assert 0.5 < np.std(off) < 1.3
        assert abs(np.mean(off)) < 0.6


@pytest.mark.parametrize("num_members", [3, 4, 5, 7, 13, 25, 60, 100])
def test_any_number_of_members_has_a_forecast(num_members: int) -> None:
    mean, target = regressors(0, num_members, 30)
    found = forecast("regression", {"mean": mean}, target, mixtures, name="rmse", seed=0, draws=20)
    assert found.size == num_members
    assert found.slope > 0
    assert 0 < found.limit_error < 1
    assert found == forecast("regression", {"mean": mean}, target, mixtures, name="rmse", seed=0, draws=20)
    few = forecast("regression", {"mean": mean}, target, mixtures, name="rmse", seed=0, draws=4, groups=4)
    assert few.slope == pytest.approx(found.slope, abs=6 * math.hypot(few.slope_error, found.slope_error))


def test_what_cannot_be_forecast_is_refused() -> None:
    mean, target = regressors(0, 2, 5)
    with pytest.raises(EnsembleError, match="2 members on 5 rows"):
        forecast("regression", {"mean": mean}, target, mixtures, name="rmse", seed=0)
    mean, target = regressors(0, 5, 5)
    with pytest.raises(EnsembleError, match="'nll' needs log_variance"):
        forecast("regression", {"mean": mean}, target, mixtures, name="nll", seed=0)
    with pytest.raises(EnsembleError, match="at two sizes or more"):
        fit_curve([1, 1], [0.1, 0.2])
    with pytest.raises(EnsembleError, match="finite values"):
        fit_curve([1, 2], [0.1, math.inf])
    with pytest.raises(EnsembleError, match="members is -1"):
        brier_like(4, 0).more(-1)


@law
@given(seeds, st.integers(2, 6))
def test_an_ensemble_of_independent_members_is_worth_its_own_size(seed, num_members) -> None:
    log_probs, target = classifiers(seed, num_members, 200)
    curve = size_curve("classification", {"log_probs": log_probs}, target, mixtures, seed=seed)
    for name in ("nll", "brier"):
        for point in curve:
            worth = equivalents(point[name]["mean"], curve, name)
            assert worth.members == pytest.approx(point["size"]) or worth.members < point["size"]
            assert worth.fewest <= worth.members <= worth.most


def test_equivalents_are_read_between_the_sizes() -> None:
    def curve(name: str, values: list[float]) -> list[dict]:
        return [{"size": i + 1, name: {"mean": v, "low": v, "high": v}} for i, v in enumerate(values)]

    falling = curve("nll", [0.5, 0.4, 0.38])
    assert equivalents(0.45, falling, "nll").members == pytest.approx(1.5)
    assert equivalents(0.385, falling, "nll").members == pytest.approx(2.75)
    assert equivalents(0.9, falling, "nll").members == 1
    assert equivalents(0.3, falling, "nll").members == math.inf
    rising = curve("accuracy", [0.8, 0.9])
    assert equivalents(0.85, rising, "accuracy").members == pytest.approx(1.5)
    assert equivalents(0.95, rising, "accuracy").members == math.inf
    banded = [
        {"size": 1, "nll": {"mean": 0.5, "low": 0.45, "high": 0.55}},
        {"size": 2, "nll": {"mean": 0.4, "low": 0.35, "high": 0.45}},
    ]
    worth = equivalents(0.45, banded, "nll")
    assert (worth.fewest, worth.members, worth.most) == (1, pytest.approx(1.5), pytest.approx(2))
    for score, points, name in ((0.4, falling, "brier"), (0.4, [], "nll"), (math.nan, falling, "nll")):
        with pytest.raises(EnsembleError):
            equivalents(score, points, name)
