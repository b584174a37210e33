"""What is measured only when asked for, how members differ, and the forecast: against plain loops and known cases."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from report_views import make_view

from ensemble_svc.aggregate.decision import equal
from ensemble_svc.aggregate.predictions import combine
from ensemble_svc.aggregate.subsets import mixtures
from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.calibration_error import brier_parts
from ensemble_svc.evaluate.checks import check_mixture
from ensemble_svc.evaluate.density import crps_mixture, score_intervals
from ensemble_svc.evaluate.forecast import forecast
from ensemble_svc.evaluate.further import LEVELS, mixture_scores
from ensemble_svc.evaluate.gain import gain_over
from ensemble_svc.evaluate.metrics import METRICS, measure
from ensemble_svc.evaluate.portrait import differences, each_class
from ensemble_svc.evaluate.prospect import MOST_NUMBERS, prospect, truth_against_rest
from ensemble_svc.evaluate.topk import top_k_accuracy
from ensemble_svc.report.html import render
from ensemble_svc.report.prospect import prospects
from ensemble_svc.scoring import diversity, scored

law = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def classifiers(seed: int, num_members: int, num_rows: int, num_classes: int = 7):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(num_classes, (num_rows,), generator=generator)
    noise = torch.randn(num_members, num_rows, num_classes, generator=generator)
    logits = 2 * torch.nn.functional.one_hot(target, num_classes) + 2 * noise
    return {"log_probs": logits.log_softmax(-1)}, target


def regressors(seed: int, num_members: int, num_rows: int):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(num_rows, 2, generator=generator) * 3
    mean, log_variance = torch.randn(2, num_members, num_rows, 2, generator=generator)
    return {"mean": target + mean, "log_variance": 0.3 * log_variance}, target


@law
@given(seeds, st.integers(1, 40), st.integers(2, 9))
def test_classification_agrees_with_the_functions_it_is_made_of(seed, num_rows, num_classes) -> None:
    members, target = classifiers(seed, 1, num_rows, num_classes)
    prediction = {"log_probs": members["log_probs"][0]}
    names = ["top5", "brier", "brier_reliability", "brier_resolution"]
    found = measure("classification", prediction, target, names=names, bins=10)
    parts = brier_parts(prediction["log_probs"], target, bins=10)
    assert found["top5"] == pytest.approx(top_k_accuracy(prediction["log_probs"], target, 5))
    assert found["brier"] == pytest.approx(parts.brier)
    assert found["brier_reliability"] == pytest.approx(parts.reliability)
    assert found["brier_resolution"] == pytest.approx(parts.resolution)
    if num_classes <= 5:
        assert found["top5"] == 1


@law
@given(seeds, st.integers(2, 30))
def test_aurc_is_the_mean_of_the_error_rates_of_the_surest(seed, num_rows) -> None:
    members, target = classifiers(seed, 1, num_rows)
    prediction = {"log_probs": members["log_probs"][0]}
    confidence, said = prediction["log_probs"].double().max(-1)
    order = sorted(range(num_rows), key=lambda i: -confidence[i].item())
    wrong = [float(said[i] != target[i]) for i in order]
    plain = sum(sum(wrong[: k + 1]) / (k + 1) for k in range(num_rows)) / num_rows
    assert measure("classification", prediction, target, names=["aurc"])["aurc"] == pytest.approx(plain)


@law
@given(seeds, st.integers(1, 4), st.integers(1, 20))
def test_numbers_of_a_mixture_are_the_mixtures(seed, num_members, num_rows) -> None:
    members, target = regressors(seed, num_members, num_rows)
    names = ["crps", "pinball", "width90", "coverage_gap"]
    ensemble = scored(equal([f"m{k}" for k in range(num_members)]), members, target, names)
    found = measure("regression", ensemble, target, names=names)
    crps = crps_mixture(members["mean"], members["log_variance"], target).mean().item()
    assert found["crps"] == pytest.approx(crps)
    alpha = 1 - (LEVELS[1] - LEVELS[0])
    intervals = score_intervals(ensemble["low"], ensemble["high"], target, alpha=alpha)
    assert found["width90"] == pytest.approx(intervals.width)
    assert found["coverage_gap"] == pytest.approx(abs(intervals.coverage - 0.9))
    assert found["pinball"] == pytest.approx(
        intervals.score * alpha / 4
    )  # Winkler's score is both ends' loss


@law
@given(seeds)
def test_one_gaussian_is_a_mixture_of_one(seed) -> None:
    members, target = regressors(seed, 1, 12)
    names = ["crps", "pinball", "width90", "coverage_gap"]
    alone = measure("regression", {key: value[0] for key, value in members.items()}, target, names=names)
    mixed = measure("regression", scored(equal(["m"]), members, target, names), target, names=names)
    assert mixed == pytest.approx(alone, rel=1e-6)


def test_a_mixture_is_not_scored_as_the_gaussian_with_its_moments() -> None:
    members, target = regressors(0, 3, 12)
    ensemble = combine(members, target_ND=target)
    with pytest.raises(EnsembleError, match="crps of 3 Gaussian members"):
        check_mixture(["crps"], ensemble, num_members=3)
    assert mixture_scores(["rmse"], *members.values(), target, torch.full((3,), 1 / 3)) == {}


def test_what_is_no_mean_over_rows_has_a_gain_without_an_interval() -> None:
    members, target = classifiers(0, 2, 50)
    one, two = ({"log_probs": member} for member in members["log_probs"])
    names = [name for name, metric in METRICS.items() if "classification" in metric.tasks]
    gains = gain_over("classification", one, {"two": [two]}, target, names=names, resamples=100, seed=0)[
        "two"
    ]
    for name in names:
        theirs, ours = (measure("classification", p, target, names=[name])[name] for p in (two, one))
        assert gains[name]["estimate"] == pytest.approx(METRICS[name].sign * (ours - theirs), abs=1e-12)
        assert (gains[name]["low"] is None) == (gains[name]["high"] is None) == (not METRICS[name].resamples)
    assert {name for name in names if not METRICS[name].resamples} == {
        *("ece_adaptive", "ece_classwise", "ece_smooth", "aurc", "excess_aurc"),
        *("brier_reliability", "brier_resolution"),
    }


@law
@given(seeds, st.integers(2, 5), st.integers(2, 30))
def test_pairs_of_classifiers_against_plain_loops(seed, num_members, num_rows) -> None:
    members, target = classifiers(seed, num_members, num_rows)
    said = members["log_probs"].argmax(-1)
    even = torch.full((num_members,), 1 / num_members).double()
    found = differences("classification", members, target, even)
    pairs = [(i, j) for i in range(num_members) for j in range(i)]
    apart = [sum(float(said[i, n] != said[j, n]) for n in range(num_rows)) / num_rows for i, j in pairs]
    assert found["disagreement"] == pytest.approx(sum(apart) / len(pairs))
    assert sum(part["rows"] for part in each_class(combine(members)["log_probs"], target)) == num_rows


@law
@given(seeds, st.integers(2, 5))
def test_doubts_are_parts_of_a_whole(seed, num_members) -> None:
    decision = equal([f"m{k}" for k in range(num_members)])
    members, target = classifiers(seed, num_members, 20)
    found = diversity("classification", decision, members, target)
    assert found["entropy"] == pytest.approx(found["expected_entropy"] + found["mutual_information"])
    numbers, truth = regressors(seed, num_members, 20)
    found = diversity("regression", decision, numbers, truth)
    assert found["total"] == pytest.approx(found["aleatoric"] + found["epistemic"])
    parts = found["ambiguity"]
    assert parts["ensemble"] == pytest.approx(parts["members"] - parts["ambiguity"])
    assert parts["ambiguity"] == pytest.approx(found["epistemic"])


@law
@given(seeds, st.integers(1, 4))
def test_the_truth_against_the_rest_keeps_the_likelihood(seed, num_members) -> None:
    members, target = classifiers(seed, num_members, 15)
    two, first = truth_against_rest(members["log_probs"], target)
    whole = measure("classification", combine(members), target)["nll"]
    assert measure("classification", combine(two), first)["nll"] == pytest.approx(whole, rel=1e-6)


def test_a_prospect_is_the_forecast_of_the_whole() -> None:
    members, target = classifiers(3, 6, 80)
    found = prospect("classification", members, target, mixtures, seed=5)
    whole = forecast("classification", members, target, mixtures, name="nll", seed=5)
    assert found is not None
    assert found["estimate"] == pytest.approx(whole.more(6).estimate, rel=1e-5)
    assert found["error"] == pytest.approx(whole.more(6).error, rel=1e-4)
    assert found["estimate"] < 0
    two = {"log_probs": members["log_probs"][:2]}
    assert prospect("classification", two, target, mixtures, seed=5) is None


def test_a_prospect_of_many_rows_looks_at_some() -> None:
    num_rows = MOST_NUMBERS
    members, target = classifiers(0, 4, num_rows // 2, 2)
    seen: list[int] = []

    def mixer(some, some_target):
        seen.append(len(some_target))
        return mixtures(some, some_target)

    found = prospect("classification", members, target, mixer, seed=0)
    assert found is not None
    assert math.isfinite(found["error"])
    assert sum(seen) <= MOST_NUMBERS // 4 + 1


def test_the_page_and_the_terminal_tell_the_forecast_and_the_hardest_class() -> None:
    view = make_view(members=6)
    (sentence,) = prospects(view.manifest, view.metrics)
    assert sentence.startswith("6 more members: NLL")
    assert "±" in sentence
    page = render(view)
    assert sentence in page
    assert "the hardest first" in page
    worst = min(view.summary["classes"], key=lambda one: (one["accuracy"], one["class"]))
    hardest = page[page.index('class="classes"') :]
    assert f'<th scope="row">{view.classes[worst["class"]]}</th>' in hardest[: hardest.index("</tr>", 300)]
    assert not prospects(view.manifest, {})
    assert "Correlation of errors" in render(make_view("regression", members=4))
