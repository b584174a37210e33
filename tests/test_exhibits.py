"""What the report shows is what the predictions say, and is small whatever they are."""

from __future__ import annotations

import io
import json
from base64 import b64decode
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from ensemble_svc.aggregate.decision import Decision, apply
from ensemble_svc.aggregate.uncertainty import entropy
from ensemble_svc.data.dataset import Dataset
from ensemble_svc.data.picture import png
from ensemble_svc.evaluate.diversity import disagreement, error_correlation
from ensemble_svc.evaluate.overlap import overlap
from ensemble_svc.evaluate.reliability import reliability
from ensemble_svc.evaluate.selective import aurc, excess_aurc
from ensemble_svc.exhibits import classes, numbers
from ensemble_svc.exhibits import said as looked_at
from ensemble_svc.exhibits.importance import importance
from ensemble_svc.exhibits.inputs import inputs
from ensemble_svc.exhibits.pairs import MEMBERS, pairs
from ensemble_svc.exhibits.said import Said
from ensemble_svc.exhibits.trials import Trial, trials_of

seeds = st.integers(0, 2**32 - 1)


def classifier(seed: int, members: int, rows: int, num_classes: int) -> tuple[dict[str, Tensor], Tensor]:
    torch.manual_seed(seed)
    target_N = torch.randint(num_classes, (rows,))
    logits_KNC = torch.randn(members, rows, num_classes) * 1.5
    logits_KNC += 2 * torch.nn.functional.one_hot(target_N, num_classes)
    return {"log_probs": logits_KNC.log_softmax(-1)}, target_N


def regressor(seed: int, members: int, rows: int, targets: int) -> tuple[dict[str, Tensor], Tensor]:
    torch.manual_seed(seed)
    truth_NT = torch.randn(rows, targets) * 3
    mean_KNT, log_variance_KNT = (
        truth_NT + torch.randn(members, rows, targets),
        torch.randn(members, rows, targets),
    )
    return {"mean": mean_KNT, "log_variance": log_variance_KNT}, truth_NT


def decision(members: int, seed: int = 0, **options: Any) -> Decision:
    weights = np.random.default_rng(seed).dirichlet(np.ones(members)) if members > 1 else np.ones(1)
    return Decision(
        members=tuple(f"{k:04d}-x" for k in range(members)), weights=tuple(weights.tolist()), **options
    )


@given(seeds, st.integers(1, 5), st.integers(1, 60), st.integers(2, 30))
@settings(max_examples=40, deadline=None)
def test_what_is_shown_of_classes_is_what_the_ensemble_says(
    seed: int, members: int, rows: int, num_classes: int
) -> None:
    each, target_N = classifier(seed, members, rows, num_classes)
    own = decision(members, seed)
    found = classes.shown_of(own, each, target_N, bins=10)
    log_probs_NC = apply(own, each)["log_probs"]
    confidence_N, said_N = log_probs_NC.double().max(dim=1)
    wrong_N = (said_N != target_N).double()
    assert found["risk"]["aurc"] == pytest.approx(aurc(wrong_N, -confidence_N))
    assert found["risk"]["excess"] == pytest.approx(excess_aurc(wrong_N, -confidence_N), abs=1e-12)
    assert found["risk"]["coverage"][-1] == 1
    assert found["risk"]["ensemble"][-1] == pytest.approx(wrong_N.mean().item(), rel=1e-6)
    assert all(a >= b - 1e-6 for a, b in zip(found["risk"]["ensemble"], found["risk"]["best"], strict=True))
    table = found["confusion"]["counts"]
    assert sum(map(sum, table)) == rows
    assert sum(rows for *_, rows in found["confusion"]["mistakes"]) <= wrong_N.sum()
    shown = found["rows"]
    assert all(fact["said"] != fact["truth"] for fact in shown["wrong"])
    assert len(shown["wrong"]) == min(classes.ROWS, int(wrong_N.sum()))
    sure = [fact["confidence"] for fact in shown["wrong"]]
    assert sure == sorted(sure, reverse=True)
    doubt_N = entropy(log_probs_NC[None])
    most = doubt_N.sort(descending=True).values[: classes.ROWS]
    assert [fact["entropy"] for fact in shown["doubtful"]] == most.tolist()
    for fact in [*shown["wrong"], *shown["doubtful"]]:
        n = fact["position"]
        assert (fact["truth"], fact["said"]) == (target_N[n], said_N[n])
        assert fact["agree"] == (each["log_probs"][:, n].argmax(1) == said_N[n]).sum()


@given(seeds, st.integers(26, 60))
@settings(max_examples=15, deadline=None)
def test_of_many_classes_those_mistaken_most_are_shown_and_the_rest_together(
    seed: int, num_classes: int
) -> None:
    torch.manual_seed(seed)
    said_N, target_N = torch.randint(num_classes, (2, 400))
    found = classes.confusion(said_N, target_N, num_classes)
    table, kept = np.array(found["counts"]), found["classes"]
    assert table.shape == (classes.CLASSES, classes.CLASSES)
    assert found["of"] == num_classes
    for i, true in enumerate(kept):
        for j, said in enumerate(kept):
            assert table[i, j] == ((target_N == true) & (said_N == said)).sum()
        assert table[i].sum() == (target_N == true).sum()
    wrong = said_N != target_N
    mixed = [int(((said_N == c) | (target_N == c))[wrong].sum()) for c in range(num_classes)]
    assert min(mixed[c] for c in kept) >= max(mixed[c] for c in range(num_classes) if c not in kept)
    true, said, rows = found["mistakes"][0]
    assert (
        rows == ((target_N == true) & (said_N == said)).sum() == max(count for *_, count in found["mistakes"])
    )


def test_a_calibrated_ensemble_shows_the_bins_without_its_calibration() -> None:
    each, target_N = classifier(0, 4, 300, 5)
    plain = decision(4)
    own = plain.model_copy(update={"calibration": {"kind": "temperature", "value": 2.0, "before": False}})
    found = classes.shown_of(own, each, target_N, bins=12)
    assert found["reliability_before"] == reliability(apply(plain, each)["log_probs"], target_N, bins=12)
    assert "reliability_before" not in classes.shown_of(plain, each, target_N, bins=12)


@given(seeds, st.integers(2, 45))
@settings(max_examples=20, deadline=None)
def test_the_pairs_are_those_of_the_heaviest_members_whatever_their_order(seed: int, members: int) -> None:
    each, target_N = classifier(seed, members, 80, 4)
    own = decision(members, seed)
    found = pairs(own.members, own.weights, each, target_N)
    places = [own.members.index(name) for name in found["members"]]
    assert len(places) == min(MEMBERS, members) == len(set(places))
    left = [w for k, w in enumerate(own.weights) if k not in places]
    assert min(own.weights[k] for k in places) >= max(left, default=0)
    said_KN = each["log_probs"].argmax(2)[places]
    np.testing.assert_allclose(found["disagreement"], disagreement(said_KN), rtol=1e-6)
    expected = error_correlation(said_KN != target_N)
    stored = torch.tensor(
        [[float("nan") if v is None else v for v in line] for line in found["error_correlation"]]
    )
    torch.testing.assert_close(stored.double(), expected, equal_nan=True, rtol=1e-5, atol=1e-6)


@given(seeds, st.integers(1, 4), st.integers(2, 50), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_what_is_shown_of_numbers_is_what_the_ensemble_says(
    seed: int, members: int, rows: int, targets: int
) -> None:
    each, target_NT = regressor(seed, members, rows, targets)
    own = decision(members, seed)
    found = numbers.shown_of(own, each, target_NT)
    mixed = apply(own, each)
    assert len(found["scatter"]) == min(targets, numbers.TARGETS)
    np.testing.assert_allclose(found["scatter"][0]["mean"], mixed["mean"][:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        found["scatter"][0]["spread"], mixed["log_variance"][:, 0].div(2).exp(), rtol=1e-4
    )
    error_N = (target_NT - mixed["mean"]).double().square().mean(1)
    assert found["risk"]["ensemble"][-1] == pytest.approx(error_N.mean().item(), rel=1e-4)
    assert found["coverage"]["ensemble"] == sorted(found["coverage"]["ensemble"])
    off = [fact["off"] for fact in found["rows"]["wrong"]]
    assert off == sorted(off, reverse=True)


def test_the_intervals_of_a_calibrated_gaussian_hold_what_they_claim() -> None:
    torch.manual_seed(0)
    mean_NT, log_variance_NT = torch.randn(20_000, 1), torch.randn(20_000, 1)
    target_NT = mean_NT + log_variance_NT.div(2).exp() * torch.randn(20_000, 1)
    each = {"mean": mean_NT[None], "log_variance": log_variance_NT[None]}
    found = numbers.shown_of(decision(1), each, target_NT)["coverage"]
    np.testing.assert_allclose(found["ensemble"], found["levels"], atol=0.012)


def test_two_hundred_members_and_a_thousand_classes_stay_small() -> None:
    each, target_N = classifier(1, 200, 150, 1000)
    own = decision(200)
    found = classes.shown_of(own, each, target_N, bins=15) | {
        "pairs": pairs(own.members, own.weights, each, target_N)
    }
    assert len(json.dumps(found)) < 120_000


@given(seeds, st.sampled_from([1, 3]), st.sampled_from([np.uint8, np.float32]))
@settings(max_examples=20, deadline=None)
def test_a_picture_shows_the_pixels(seed: int, channels: int, kind: Any) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (channels, 9, 7), dtype=np.uint8)
    image = pixels if kind == np.uint8 else (pixels / np.float32(255) * 16).astype(np.float32)
    white = 255.0 if kind == np.uint8 else 16.0
    shown = np.asarray(Image.open(io.BytesIO(png(image, 0.0, white, most=64))))
    assert np.array_equal(shown, pixels[0] if channels == 1 else pixels.transpose(1, 2, 0))


def test_a_large_picture_is_made_smaller() -> None:
    image = np.zeros((3, 300, 200), dtype=np.uint8)
    assert Image.open(io.BytesIO(png(image, 0.0, 255.0, most=64))).size == (43, 64)


def test_the_inputs_of_a_table_are_the_columns_farthest_from_the_training_rows() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 9)).astype(np.float32)
    x[:, 8] = rng.integers(0, 2, 200)
    x[150:, 4], x[151, 2] = 9.0, np.nan
    data = Dataset(
        x, np.zeros(200), np.arange(200), "table", tuple("abcdefghi"), {"i": ("no", "yes")}, targets=("y",)
    )
    found = inputs(data, [150, 151], np.arange(150))
    assert found["features"][0] == "e"
    assert found["of"] == 9
    assert found["values"][0][0] == 9.0
    assert all(line[0] > 5 for line in found["unusual"])
    whole = inputs(Dataset(x[:, [2, 8]], np.zeros(200), np.arange(200), "table", ("c", "i"), {"i": ("no", "yes")}),
                   [151], np.arange(150))  # fmt: skip
    by_name = dict(zip(whole["features"], whole["values"][0], strict=True))
    assert by_name["c"] is None
    assert by_name["i"] == ("no", "yes")[int(x[151, 8])]


def test_images_are_shown_as_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 1, 4, 4), dtype=np.uint8)
    found = inputs(Dataset(pixels, np.zeros(5), np.arange(5), "image"), [3], np.arange(5))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(b64decode(found["pictures"][0])))), pixels[3, 0])


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60),
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60),
)
@settings(max_examples=40, deadline=None)
def test_both_histograms_hold_every_row(usual: list[float], foreign: list[float]) -> None:
    found = overlap(
        torch.tensor(usual, dtype=torch.float64), torch.tensor(foreign, dtype=torch.float64), bins=7
    )
    assert (sum(found["usual"]), sum(found["foreign"])) == (len(usual), len(foreign))
    assert found["usual"] == np.histogram(usual, bins=np.array(found["edges"]))[0].tolist()


SPACE = {"a": {"loguniform": [1e-4, 1.0]}, "b": {"uniform": [0.0, 1.0]}, "c": {"choice": ["relu", "gelu"]}}


def made(number: int, values: dict[str, Any], value: float | None) -> Trial:
    return Trial(number, values, value, None, 3, "done", "", (str(number),))


def test_what_decides_the_metric_matters_most() -> None:
    rng = np.random.default_rng(0)
    draws = zip(rng.uniform(-4, 0, 80), rng.uniform(size=80), rng.choice(["relu", "gelu"], 80), strict=True)
    values = [{"a": float(10**a), "b": float(b), "c": str(c)} for a, b, c in draws]
    trials = [made(i, v, np.log10(v["a"]) ** 2 + 0.1 * (v["c"] == "relu")) for i, v in enumerate(values)]
    found = importance(SPACE, trials)
    shares = found["shares"]
    assert max(shares, key=shares.get) == "a"
    assert shares["a"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)
    assert found == importance(SPACE, trials)
    assert (found["trials"], found["absent"]) == (80, [])


def test_a_key_that_some_trials_lack_takes_no_part_and_few_trials_say_nothing() -> None:
    rng = np.random.default_rng(1)
    values = [{"a": 10 ** rng.uniform(-4, 0), **({"b": rng.uniform()} if i % 2 else {})} for i in range(20)]
    trials = [made(i, v, v["a"]) for i, v in enumerate(values)]
    assert importance(SPACE, trials)["absent"] == ["b", "c"]
    assert importance(SPACE, trials[:5]) == {}
    assert importance(SPACE, [made(i, v, 1.0) for i, v in enumerate(values)]) == {}
    assert importance(SPACE, [made(i, v, None) for i, v in enumerate(values)]) == {}


@given(st.integers(1, 6), st.integers(1, 4), seeds)
@settings(max_examples=20, deadline=None)
def test_members_of_equal_values_are_one_trial(trials: int, each: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(trials, each))
    entries = [
        {"id": f"{i}-{k}", "index": i * each + k, "hyperparameters": {"a": i, "other": k}, "status": "done",
         "epochs": i + 1, "stopped": i < 2, "metrics": {"validation": {"nll": scores[i, k]}}}
        for i in range(trials) for k in range(each)
    ]  # fmt: skip
    found = trials_of(["a", "b"], "nll", [entries[i] for i in rng.permutation(len(entries))])
    assert [trial.values for trial in found] == [{"a": i} for i in range(trials)]
    assert [trial.number for trial in found] == list(range(trials))
    np.testing.assert_allclose([trial.value for trial in found], scores.mean(1))
    if each > 1:
        np.testing.assert_allclose([trial.error for trial in found], scores.std(1, ddof=1) / each**0.5)
    assert [trial.ended for trial in found] == ["stopped" if i < 2 else "done" for i in range(trials)]
    assert [len(trial.members) for trial in found] == [each] * trials


@given(seeds, st.integers(1, 6), st.integers(2, 60), st.integers(1, 400), st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_same_is_shown_of_stacks_and_of_single_members_a_piece_of_the_rows_at_a_time(
    seed: int, members: int, rows: int, numbers_at_once: int, of_classes: bool
) -> None:
    each, target = classifier(seed, members, rows, 4) if of_classes else regressor(seed, members, rows, 2)
    kind = "temperature" if of_classes else "variance_scale"
    own = decision(members, seed, calibration={"kind": kind, "value": 2.0, "before": True})

    def shown(found: Said) -> dict[str, Any]:
        first = (
            classes.shown_of(own, found, target, bins=5)
            if of_classes
            else numbers.shown_of(own, found, target)
        )
        return first | {"pairs": pairs(own.members, own.weights, found, target)}

    whole = shown(each)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looked_at, "NUMBERS", numbers_at_once)
        cut = shown({name: list(stack) for name, stack in each.items()})
    assert_alike(cut, whole)


def assert_alike(found: Any, expected: Any) -> None:
    """Equal but for the round-off of sums."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        found, expected = [*found.values()], [*expected.values()]
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    else:
        assert found == (
            pytest.approx(expected, rel=1e-5, abs=1e-7) if isinstance(expected, float) else expected
        )
