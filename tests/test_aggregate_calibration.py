"""Laws of calibration: it never hurts on the rows of the fit, finds what is known, and covers what it says."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from ensemble_svc.aggregate.calibration.conformal import conformal_quantile, fit_intervals, fit_sets
from ensemble_svc.aggregate.calibration.isotonic import fit_isotonic
from ensemble_svc.aggregate.calibration.line import least_on
from ensemble_svc.aggregate.calibration.plain import from_plain, to_plain
from ensemble_svc.aggregate.calibration.temperature import (
    COLDEST,
    HOTTEST,
    Temperature,
    fit_after,
    fit_before,
)
from ensemble_svc.aggregate.calibration.variance import VarianceScale, fit_gaussian, fit_mixture
from ensemble_svc.aggregate.calibration.vector import VectorScaling, fit_vector
from ensemble_svc.aggregate.predictions import average, mixture_log_density
from ensemble_svc.errors import EnsembleError

law = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
rows = st.integers(1, 40)
members = st.integers(1, 4)


def classifiers(seed: int, num_members: int, num_rows: int, scale: float = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_members, num_rows, 3, generator=generator, dtype=torch.float64) * scale
    target = torch.randint(3, (num_rows,), generator=generator)
    knows = torch.rand(num_rows, 1, generator=generator) < 0.5
    logits = logits + 2 * scale * knows * torch.nn.functional.one_hot(target, 3)
    return logits.log_softmax(-1), target


def drawn_from(log_probs: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(log_probs.exp(), 1, generator=generator)[:, 0]


def gaussians(seed: int, num_members: int, num_rows: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(num_rows, 2, generator=generator, dtype=torch.float64)
    noise, log_variance = torch.randn(2, num_members, num_rows, 2, generator=generator, dtype=torch.float64)
    return target + noise, log_variance, target


def nll(log_probs: Tensor, target: Tensor) -> float:
    return -log_probs.gather(1, target[:, None]).mean().item()


@law
@given(seeds, members, rows)
def test_no_temperature_raises_the_loss_on_its_own_rows(seed, num_members, num_rows) -> None:
    log_probs, target = classifiers(seed, num_members, num_rows)
    mixture = average(log_probs)
    after, before = fit_after(mixture, target), fit_before(log_probs, target)
    assert nll(after.apply(mixture), target) <= nll(mixture, target) + 1e-12
    assert nll(before.pool(log_probs), target) <= nll(mixture, target) + 1e-12
    assert torch.equal(after.pool(log_probs), after.apply(mixture))


@law
@given(seeds, st.integers(5, 40))
def test_the_temperature_is_that_of_a_general_solver(seed, num_rows) -> None:
    log_probs, target = classifiers(seed, 1, num_rows)

    def loss(log_temperature: float) -> float:
        return nll((log_probs[0] / math.exp(log_temperature)).log_softmax(-1), target)

    ours = fit_after(log_probs[0], target).value
    found = minimize_scalar(loss, bounds=(math.log(COLDEST), math.log(HOTTEST)), method="bounded")
    assert loss(math.log(ours)) <= found.fun + 1e-9
    tempered = fit_before(log_probs, target).pool(log_probs)
    assert nll(tempered, target) == pytest.approx(loss(math.log(ours)), abs=1e-9)


@law
@given(seeds, rows)
def test_a_temperature_keeps_the_predicted_classes(seed, num_rows) -> None:
    log_probs, target = classifiers(seed, 1, num_rows)
    tempered = fit_after(log_probs[0], target).apply(log_probs[0])
    assert torch.equal(tempered.argmax(-1), log_probs[0].argmax(-1))


@law
@given(seeds, members, rows)
def test_a_temperature_of_one_changes_no_bit(seed, num_members, num_rows) -> None:
    log_probs, _ = classifiers(seed, num_members, num_rows)
    for before in (True, False):
        one = Temperature(1.0, before=before)
        assert torch.equal(one.apply(log_probs), log_probs)
        assert torch.equal(one.pool(log_probs), average(log_probs))


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_found(true: float) -> None:
    """Labels drawn from softmax(logits), predictions that say softmax(logits x T) (Guo et al. 2017)."""
    logits = torch.randn(100_000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    target = drawn_from(logits.log_softmax(-1), 1)
    said = (logits * true).log_softmax(-1)
    assert fit_after(said, target).value == pytest.approx(true, rel=0.02)
    assert fit_before(said[None, :20_000], target[:20_000]).value == pytest.approx(true, rel=0.05)


def test_members_are_tempered_less_than_they_would_be_alone() -> None:
    """Calibrated members that disagree mix to an underconfident ensemble, so the pool's T is below 1."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(20_000, 3, generator=generator, dtype=torch.float64) * 2
    target = drawn_from(shared.log_softmax(-1), 1)
    noisy = shared + torch.randn(8, 20_000, 3, generator=generator, dtype=torch.float64) * 2
    one_each = torch.stack([fit_after(m, target).apply(m) for m in noisy.log_softmax(-1)])
    assert fit_before(one_each, target).value < 1
    assert fit_after(average(one_each), target).value < 1


def test_rows_that_have_no_best_temperature_end_at_a_bound() -> None:
    log_probs = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64).log()
    assert fit_after(log_probs, torch.tensor([0, 1])).value == pytest.approx(COLDEST)
    assert fit_after(log_probs, torch.tensor([1, 0])).value == pytest.approx(HOTTEST)
    assert fit_after(torch.full((3, 4), 0.25).log(), torch.tensor([0, 1, 2])).value == 1
    certain = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]).log()
    for target in (torch.tensor([0, 1, 0]), torch.tensor([1, 0, 1]), torch.tensor([0, 1, 1])):
        for fitted in (fit_after(certain, target), fit_before(certain[None], target)):
            assert COLDEST * (1 - 1e-9) <= fitted.value <= HOTTEST * (1 + 1e-9)
            assert not fitted.apply(certain).isnan().any()


@law
@given(seeds, rows)
def test_vector_scaling_never_raises_the_loss_on_its_own_rows(seed, num_rows) -> None:
    log_probs, target = classifiers(seed, 1, num_rows)
    loss = nll(fit_vector(log_probs[0], target).apply(log_probs[0]), target)
    assert loss <= nll(log_probs[0], target) + 1e-9


def test_vector_scaling_is_logistic_regression_on_two_classes() -> None:
    """Without a pull: the log odds are linear in the two log probabilities, each with its scale."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(4000, 2, generator=generator, dtype=torch.float64)
    target = drawn_from((logits * torch.tensor([0.5, 2.0]) + torch.tensor([0.7, 0])).log_softmax(-1), 4)
    fitted = fit_vector(logits.log_softmax(-1), target, pull_rows=0)
    features = logits.log_softmax(-1).numpy()
    peer = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(features, target.numpy())
    expected = torch.tensor(peer.predict_log_proba(features))
    torch.testing.assert_close(fitted.apply(logits.log_softmax(-1)), expected, atol=1e-4, rtol=1e-4)


def test_no_change_is_no_change_for_every_calibration() -> None:
    log_probs, _ = classifiers(0, 2, 5)
    assert torch.equal(VectorScaling((1.0,) * 3, (0.0,) * 3).apply(log_probs), log_probs)
    assert torch.equal(VarianceScale(1.0, before=True).apply(log_probs), log_probs)


def test_vector_scaling_stays_finite_where_a_class_is_absent() -> None:
    log_probs, _ = classifiers(0, 1, 30)
    fitted = fit_vector(log_probs[0], log_probs[0].argmax(-1).clamp(max=1))
    assert all(math.isfinite(v) for v in fitted.scale + fitted.shift)


@law
@given(seeds, st.integers(1, 60), st.booleans())
def test_the_isotonic_functions_are_scikit_learns(seed, num_rows, tied) -> None:
    log_probs, target = classifiers(seed, 1, num_rows)
    if tied:
        log_probs = log_probs[:, torch.arange(num_rows) // 3]
    fitted = fit_isotonic(log_probs[0], target, floor=0)
    asked = classifiers(seed + 1, 1, 50)[0][0]
    columns = []
    for c in range(3):
        peer = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        peer.fit(log_probs[0, :, c].exp().numpy(), (target == c).double().numpy())
        columns.append(peer.predict(asked[:, c].exp().numpy()))
    raw = np.stack(columns, axis=-1)
    raw[raw.sum(-1) == 0] = 1
    expected = raw / raw.sum(-1, keepdims=True)
    np.testing.assert_allclose(fitted.apply(asked).exp().numpy(), expected, atol=1e-6)


@law
@given(seeds, st.integers(2, 60))
def test_isotonic_with_two_classes_lowers_the_brier_score(seed, num_rows) -> None:
    logits, target = classifiers(seed, 1, num_rows)
    log_probs, target = logits[0, :, :2].log_softmax(-1), target.clamp(max=1)
    truth = torch.nn.functional.one_hot(target, 2)
    fitted = fit_isotonic(log_probs, target)
    after = (fitted.apply(log_probs).exp() - truth).square().sum(-1).mean()
    assert after <= (log_probs.exp() - truth).square().sum(-1).mean() + 2 * fitted.floor
    assert fitted.apply(log_probs).isfinite().all()


@law
@given(seeds, members, rows)
def test_no_scale_of_the_variance_raises_the_loss_on_its_own_rows(seed, num_members, num_rows) -> None:
    mean, log_variance, target = gaussians(seed, num_members, num_rows)

    def loss(scale: VarianceScale | None, kept: int) -> float:
        spread = log_variance if scale is None else scale.apply(log_variance)
        return -mixture_log_density(mean[:kept], spread[:kept], target).mean().item()

    assert loss(fit_mixture(mean, log_variance, target), num_members) <= loss(None, num_members) + 1e-12
    one = fit_gaussian(mean[0], log_variance[0], target)
    assert loss(one, 1) <= loss(None, 1) + 1e-12
    assert fit_mixture(mean[:1], log_variance[:1], target).value == pytest.approx(one.value, rel=1e-3)


def test_a_known_scale_of_the_variance_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_variance, noise = torch.randn(3, 20_000, 1, generator=generator, dtype=torch.float64)
    target = mean + noise * (0.5 * log_variance).exp() * 3
    assert fit_gaussian(mean, log_variance, target).value == pytest.approx(9, rel=0.05)
    assert fit_mixture(mean[None], log_variance[None], target).value == pytest.approx(9, rel=0.05)


def test_the_least_of_several_valleys_is_found() -> None:
    assert least_on(lambda x: math.cos(3 * math.log(x)) + 0.1 * math.log(x), 0.01, 100) == pytest.approx(
        math.exp(-math.pi - 0.0111), rel=1e-3
    )
    assert least_on(lambda x: 0.0, 0.01, 100) == 1


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("randomised", [True, False])
def test_sets_hold_the_truth_as_often_as_they_say(alpha: float, randomised: bool) -> None:
    """Coverage over fresh rows and fresh calibrations, within what binomial chance allows."""
    generator = torch.Generator().manual_seed(0)
    held, new, repeats, hits, sizes = 199, 500, 40, 0, 0.0
    for repeat in range(repeats):
        logits = torch.randn(held + new, 4, generator=generator, dtype=torch.float64) * 2
        target = drawn_from(logits.log_softmax(-1), repeat)
        said = (logits * 1.7 + torch.randn(4, generator=generator)).log_softmax(-1)
        draws = torch.rand(held + new, generator=generator, dtype=torch.float64) if randomised else None
        fitted = fit_sets(
            said[:held], target[:held], alpha=alpha, uniform_N=None if draws is None else draws[:held]
        )
        inside = fitted.apply(said[held:], None if draws is None else draws[held:])
        hits += int(inside.gather(1, target[held:, None]).sum())
        sizes += inside.sum(1).double().mean().item() / repeats
        if not randomised:
            assert inside.any(dim=1).all()
    # the calibration rows too are a sample: coverage given them is Beta(n + 1 - l, l) around 1 - alpha
    spread = math.sqrt(alpha * (1 - alpha) * (1 / (held + 2) + 1 / new) / repeats)
    assert hits / (new * repeats) >= 1 - alpha - 4 * spread
    assert sizes < 4
    if randomised:
        assert hits / (new * repeats) <= 1 - alpha + 1 / (held + 1) + 4 * spread


@pytest.mark.parametrize("alpha", [0.05, 0.2])
@pytest.mark.parametrize("normalised", [True, False])
def test_intervals_hold_the_truth_as_often_as_they_say(alpha: float, normalised: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    held, new, repeats = 199, 500, 40
    hits = torch.zeros(2)
    for _ in range(repeats):
        mean, log_variance, noise = torch.randn(3, held + new, 2, generator=generator, dtype=torch.float64)
        target = mean + noise**3 * (0.5 * log_variance).exp()
        said = log_variance if normalised else None
        fitted = fit_intervals(mean[:held], None if said is None else said[:held], target[:held], alpha=alpha)
        low, high = fitted.apply(mean[held:], None if said is None else said[held:])
        hits += ((low <= target[held:]) & (target[held:] <= high)).sum(0)
    spread = math.sqrt(alpha * (1 - alpha) * (1 / (held + 2) + 1 / new) / repeats)
    for share in (hits / (new * repeats)).tolist():
        assert 1 - alpha - 4 * spread <= share <= 1 - alpha + 1 / (held + 1) + 4 * spread


@law
@given(st.integers(1, 30), st.floats(0.01, 0.99))
def test_the_conformal_quantile_is_the_least_score_with_enough_below(num_rows, alpha) -> None:
    """By counting: of the n + 1 places a new score may take among n, at least (1 - alpha) are at or below it."""
    scores = torch.randperm(num_rows, generator=torch.Generator().manual_seed(num_rows)).double()
    enough = [s for s in range(num_rows) if (s + 1) / (num_rows + 1) >= 1 - alpha - 1e-12]
    assert conformal_quantile(scores, alpha) == (float(enough[0]) if enough else math.inf)


def test_nine_rows_suffice_for_one_in_ten_and_eight_do_not() -> None:
    assert conformal_quantile(torch.arange(9.0), 0.1) == 8
    assert conformal_quantile(torch.arange(8.0), 0.1) == math.inf
    log_probs, target = classifiers(0, 1, 8)
    assert fit_sets(log_probs[0], target, alpha=0.1).apply(log_probs[0]).all()


def every_calibration() -> list:
    log_probs, target = classifiers(5, 2, 40)
    mean, log_variance, numbers = gaussians(5, 2, 40)
    return [
        fit_after(log_probs[0], target),
        fit_before(log_probs, target),
        fit_vector(log_probs[0], target),
        fit_isotonic(log_probs[0], target),
        fit_gaussian(mean[0], log_variance[0], numbers),
        fit_mixture(mean, log_variance, numbers),
        fit_sets(log_probs[0], target, alpha=0.1),
        fit_intervals(mean[0], None, numbers, alpha=0.1),
        fit_intervals(mean[0], log_variance[0], numbers, alpha=0.1),
    ]


def test_what_is_written_and_read_is_the_same() -> None:
    for calibration in every_calibration():
        assert from_plain(json.loads(json.dumps(to_plain(calibration)))) == calibration
    with pytest.raises(
        EnsembleError, match="calibration 'temprature' is unknown. Did you mean 'temperature'"
    ):
        from_plain({"kind": "temprature"})
    with pytest.raises(EnsembleError, match="'temperature' cannot be read"):
        from_plain({"kind": "temperature", "celsius": 1})


def test_bad_input_is_refused() -> None:
    log_probs, target = classifiers(0, 2, 6)
    mean, log_variance, numbers = gaussians(0, 2, 6)
    for wrong in (
        lambda: fit_after(log_probs[0], target[:-1]),
        lambda: fit_after(log_probs[0], target + 2),
        lambda: fit_after(log_probs[0] * 2, target),
        lambda: fit_after(log_probs[0], target.double()),
        lambda: fit_before(log_probs, target[:-1]),
        lambda: fit_vector(log_probs[0], target, pull_rows=-1),
        lambda: fit_vector(log_probs[0], target).apply(log_probs[..., :2]),
        lambda: fit_isotonic(log_probs[0], target, floor=1),
        lambda: fit_isotonic(log_probs[0], target).apply(log_probs[..., :2]),
        lambda: fit_gaussian(mean[0], log_variance[0], numbers[:, :1]),
        lambda: fit_gaussian(mean[0], log_variance[0], numbers * torch.nan),
        lambda: fit_sets(log_probs[0], target, alpha=0),
        lambda: fit_sets(log_probs[0], target, alpha=0.1, uniform_N=torch.zeros(3)),
        lambda: fit_intervals(mean[0], log_variance[0], numbers, alpha=0.5).apply(mean[0]),
        lambda: fit_intervals(mean[0], None, numbers, alpha=0.5).apply(mean[0, :, :1]),
        lambda: Temperature(0.0, before=True),
        lambda: VarianceScale(math.inf, before=True),
    ):
        with pytest.raises(EnsembleError):
            wrong()
