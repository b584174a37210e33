"""Laws of every metric of the catalogue, and agreement with torchmetrics, scikit-learn and scipy."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    log_loss,
    mean_absolute_error,
    mean_squared_error,
)
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.metrics import METRICS, applicable, measure
from ensemble_svc.evaluate.reliability import reliability
from ensemble_svc.spec.job import EvaluateSpec, Metric, Task

law = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
rows = st.integers(1, 60)
classes = st.integers(2, 5)
every_metric = pytest.mark.parametrize(
    "task, name", [(task, name) for name, metric in METRICS.items() for task in metric.tasks]
)


def classifier(seed: int, num_rows: int, num_classes: int) -> tuple[dict[str, Tensor], Tensor]:
    """A prediction with certain, impossible and ordinary classes, and targets it knows something of."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_rows, num_classes, generator=generator, dtype=torch.float64) * 4
    target = torch.where(
        torch.rand(num_rows, generator=generator) < 0.6,
        logits.argmax(-1),
        torch.randint(num_classes, (num_rows,), generator=generator),
    )
    certain = torch.rand(num_rows, generator=generator) < 0.1
    logits[certain] = torch.where(
        logits[certain] == logits[certain].amax(-1, keepdim=True), 0.0, -1e3
    ).double()
    return {"log_probs": logits.log_softmax(-1)}, target


def regressor(seed: int, num_rows: int, num_targets: int) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean, log_variance, noise = torch.randn(
        3, num_rows, num_targets, generator=generator, dtype=torch.float64
    )
    return {"mean": mean, "log_variance": log_variance}, mean + noise * 2


def example(task: Task, seed: int, num_rows: int) -> tuple[dict[str, Tensor], Tensor]:
    if task == "classification":
        return classifier(seed, num_rows, 3)
    return regressor(seed, num_rows, 2)


def take(prediction: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    return {key: value[index] for key, value in prediction.items()}


def test_auto_is_the_usual_few() -> None:
    """So that more to ask for makes no run slower."""
    for task in get_args(Task):
        prediction, target = example(task, 0, 20)
        usual = {name for name, metric in METRICS.items() if metric.usual and task in metric.tasks}
        assert set(measure(task, prediction, target)) == usual
        assert len(usual) == 4


def test_the_catalogue_is_what_a_job_may_ask_for() -> None:
    assert set(METRICS) == set(get_args(Metric))
    for task in get_args(Task):
        assert any(task in metric.tasks for metric in METRICS.values())


@every_metric
@law
@given(seeds, rows)
def test_a_metric_is_of_the_rows_not_of_their_order_or_number(task, name, seed, num_rows) -> None:
    prediction, target = example(task, seed, num_rows)
    value = measure(task, prediction, target, names=[name])[name]
    times = (
        3 if METRICS[name].resamples else 1
    )  # bins of equal mass and ranks depend on how many rows there are
    shuffled = torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed)).repeat(times)
    again = measure(task, take(prediction, shuffled), target[shuffled], names=[name])[name]
    assert again == pytest.approx(value, rel=1e-9, abs=1e-12)


@every_metric
@law
@given(seeds, rows)
def test_a_per_row_metric_is_a_mean_over_rows(task, name, seed, num_rows) -> None:
    """What the catalogue says of it: the mean, or root mean square, of the rows measured one at a time."""
    if not METRICS[name].per_row:
        return
    prediction, target = example(task, seed, num_rows)
    each = torch.tensor(
        [
            measure(task, take(prediction, row), target[row], names=[name])[name]
            for row in torch.arange(num_rows).split(1)
        ],
        dtype=torch.float64,
    )
    expected = each.square().mean().sqrt() if name == "rmse" else each.mean()
    assert measure(task, prediction, target, names=[name])[name] == pytest.approx(expected.item(), rel=1e-9)


@every_metric
def test_the_direction_is_true(task, name) -> None:
    """A prediction that is nearly right beats one that knows nothing, in the direction that is stated."""
    prediction, target = example(task, 0, 200)
    if task == "classification":
        target = torch.randint(12, (200,), generator=torch.Generator().manual_seed(0))
        right = torch.nn.functional.one_hot(target, 12).double().mul(9).log_softmax(-1)
        good, bad = {"log_probs": right}, {"log_probs": right.roll(1, dims=0)}
    else:
        narrow = torch.full_like(target, -2)
        good = {"mean": target + 0.1, "log_variance": narrow}
        bad = {"mean": prediction["mean"], "log_variance": narrow + 0.1}
    gain = measure(task, good, target, names=[name])[name] - measure(task, bad, target, names=[name])[name]
    assert gain * METRICS[name].sign > 0


@law
@given(seeds, rows, classes)
def test_classification_agrees_with_scikit_learn_and_torchmetrics(seed, num_rows, num_classes) -> None:
    prediction, target = classifier(seed, num_rows, num_classes)
    log_probs = prediction["log_probs"].clamp(min=-30).log_softmax(-1)  # scikit-learn clips what is smaller
    probs, labels = log_probs.exp(), np.arange(num_classes)
    found = measure("classification", {"log_probs": log_probs}, target)
    assert found["accuracy"] == pytest.approx(accuracy_score(target, probs.argmax(-1)))
    assert found["accuracy"] == pytest.approx(
        multiclass_accuracy(probs, target, num_classes, average="micro").item(), abs=1e-6
    )
    assert found["nll"] == pytest.approx(log_loss(target, probs.numpy(), labels=labels), abs=1e-9)
    theirs = brier_score_loss(
        *((target == 1, probs[:, 1]) if num_classes == 2 else (target, probs)), labels=labels
    )
    assert found["brier"] == pytest.approx(theirs * (2 if num_classes == 2 else 1), abs=1e-9)


@law
@given(seeds, rows, classes, st.integers(2, 20))
def test_calibration_error_agrees_with_torchmetrics(seed, num_rows, num_classes, bins) -> None:
    """Rows that are certain, rightly and wrongly, included."""
    prediction, target = classifier(seed, num_rows, num_classes)
    probs = prediction["log_probs"].exp().clamp(max=1)
    theirs = multiclass_calibration_error(probs, target, num_classes, n_bins=bins).item()
    assert measure("classification", prediction, target, bins=bins)["ece"] == pytest.approx(theirs, abs=2e-6)


@law
@given(seeds, rows, st.integers(1, 3))
def test_regression_agrees_with_scikit_learn_and_scipy(seed, num_rows, num_targets) -> None:
    prediction, target = regressor(seed, num_rows, num_targets)
    found = measure("regression", prediction, target)
    assert found["rmse"] == pytest.approx(math.sqrt(mean_squared_error(target, prediction["mean"])))
    assert found["mae"] == pytest.approx(mean_absolute_error(target, prediction["mean"]))
    scale = (prediction["log_variance"] / 2).exp().numpy()
    nll = -norm.logpdf(target.numpy(), prediction["mean"].numpy(), scale).sum(-1).mean()
    assert found["nll_gaussian"] == pytest.approx(nll)
    assert found["nll"] == found["nll_gaussian"]  # one Gaussian is its own mixture


def test_calibration_error_of_a_case_done_by_hand() -> None:
    """Bins of a half: .2 of the rows in the first (.4, wrong); in the second .9, .8, .8, .6, two right."""
    confidence = torch.tensor([0.4, 0.9, 0.8, 0.8, 0.6], dtype=torch.float64)
    rest = (1 - confidence)[:, None] / 2
    log_probs = torch.cat([confidence[:, None], rest, rest], dim=1).log()
    target = torch.tensor([1, 0, 0, 1, 2])
    expected = 1 / 5 * 0.4 + 4 / 5 * abs(0.775 - 0.5)
    found = measure("classification", {"log_probs": log_probs}, target, names=["ece"], bins=2)
    assert found["ece"] == pytest.approx(expected, abs=1e-12)


def test_wrong_with_certainty_stands_alone_as_in_torchmetrics() -> None:
    """A confidence that float32 cannot tell from 1 shares no bin with .95, so their gaps do not cancel."""
    log_probs = torch.tensor([[1 - 1e-9, 1e-9], [0.95, 0.05]], dtype=torch.float64).log()
    target = torch.tensor([1, 0])
    found = measure("classification", {"log_probs": log_probs}, target)["ece"]
    assert found == pytest.approx((1 + 0.05) / 2, abs=1e-8)
    assert found == pytest.approx(multiclass_calibration_error(log_probs.exp(), target, 2).item(), abs=1e-6)


def test_brier_sums_over_the_classes() -> None:
    log_probs = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64).log()
    found = measure("classification", {"log_probs": log_probs}, torch.tensor([0]))
    assert found["brier"] == pytest.approx(0.3**2 + 0.2**2 + 0.1**2)


def test_a_probability_above_1_by_round_off_is_still_a_probability() -> None:
    """torchmetrics would take one such number for a sign of logits and soften the whole table."""
    log_probs = torch.tensor([[2e-7, -20.0], [math.log(0.9), math.log(0.1)]])
    assert (log_probs.exp() > 1).any()
    found = measure("classification", {"log_probs": log_probs}, torch.tensor([0, 0]))
    assert found["ece"] == pytest.approx(0.05, abs=1e-6)


def test_an_impossible_truth_costs_infinity_and_leaves_the_rest_alone() -> None:
    log_probs = torch.tensor([[0.0, -torch.inf], [math.log(0.5)] * 2])
    found = measure("classification", {"log_probs": log_probs}, torch.tensor([1, 0]))
    assert found["nll"] == math.inf
    assert found["brier"] == pytest.approx((2 + 0.5) / 2)
    assert measure("classification", {"log_probs": log_probs}, torch.tensor([0, 0]))["nll"] < 1


def test_nll_takes_the_mixtures_density_and_nll_gaussian_the_moments() -> None:
    prediction, target = regressor(1, 7, 2)
    density = torch.linspace(-3, 0, 7)
    found = measure("regression", prediction | {"log_density": density}, target)
    assert found["nll"] == pytest.approx(1.5)
    assert found["nll_gaussian"] == measure("regression", prediction, target)["nll_gaussian"]


def test_a_mean_alone_is_measured_by_its_errors() -> None:
    prediction, target = regressor(1, 7, 2)
    assert measure("regression", {"mean": prediction["mean"]}, target).keys() == {"rmse", "mae"}
    with pytest.raises(EnsembleError, match="'nll' needs log_variance"):
        measure("regression", {"mean": prediction["mean"]}, target, names=["nll"])


def test_names_keep_their_order_and_wrong_ones_are_refused() -> None:
    prediction, target = classifier(0, 5, 3)
    assert list(measure("classification", prediction, target, names=("ece", "nll", "ece"))) == ["ece", "nll"]
    assert applicable("classification", prediction) == ("accuracy", "nll", "brier", "ece")
    with pytest.raises(EnsembleError, match=r"'accurracy' is no metric .*\. Did you mean 'accuracy'"):
        applicable("classification", prediction, ["accurracy"])
    with pytest.raises(EnsembleError, match="'rmse' is no metric of classification"):
        applicable("classification", prediction, ["rmse"])


UNIFORM = torch.full((4, 2), 0.5).log()
ZEROS = torch.zeros(4, 2)


@pytest.mark.parametrize(
    "task, prediction, target, message",
    [
        ("classification", {"log_probs": UNIFORM}, torch.zeros(4, 1, dtype=torch.int64), "integers of shape"),
        ("classification", {"log_probs": UNIFORM}, torch.zeros(4), "float32"),
        ("classification", {"log_probs": UNIFORM}, torch.zeros(3, dtype=torch.int64), r"\[4, 2\].*\[3, 2\]"),
        ("classification", {"log_probs": UNIFORM[None]}, torch.zeros(4, dtype=torch.int64), r"\[1, 4, 2\]"),
        ("classification", {"log_probs": UNIFORM}, torch.tensor([0, 1, 2, 0]), "from 0 to 2; 2 classes"),
        ("classification", {"log_probs": UNIFORM}, torch.tensor([0, -1, 1, 0]), "from -1 to 1"),
        ("classification", {"log_probs": ZEROS}, torch.zeros(4, dtype=torch.int64), "sum to 2 in row 0"),
        ("classification", {"log_probs": UNIFORM * torch.nan}, torch.zeros(4, dtype=torch.int64), "nan"),
        ("classification", {"log_probs": UNIFORM[:0]}, torch.zeros(0, dtype=torch.int64), "no rows"),
        ("classification", {"mean": ZEROS}, torch.zeros(4, dtype=torch.int64), "log_probs is needed"),
        ("regression", {"mean": ZEROS[:, :1]}, torch.zeros(4), r"must be \[rows, targets\]"),
        ("regression", {"mean": ZEROS[:, 0]}, torch.zeros(4, 1), r"mean has shape \[4\]"),
        ("regression", {"mean": ZEROS, "log_variance": ZEROS[:, :1]}, ZEROS, "log_variance has shape"),
        ("regression", {"mean": ZEROS, "log_density": ZEROS}, ZEROS, "log_density has shape"),
        (
            "regression",
            {"mean": ZEROS, "log_density": ZEROS[:, 0] * torch.nan},
            ZEROS,
            "log_density holds NaN",
        ),
        ("regression", {"mean": ZEROS / 0}, ZEROS, "mean is .nan, nan. in row 0"),
        ("regression", {"mean": ZEROS}, ZEROS / 0, "targets are not all finite"),
        ("regression", {"mean": ZEROS[:0]}, ZEROS[:0], "no rows"),
    ],
)
def test_predictions_and_targets_that_do_not_belong_together(task, prediction, target, message) -> None:
    with pytest.raises(EnsembleError, match=message):
        measure(task, prediction, target)


@law
@given(seeds, rows, classes, st.integers(2, 20))
def test_the_reliability_diagram_holds_every_row_and_gives_the_calibration_error(
    seed, num_rows, num_classes, bins
) -> None:
    prediction, target = classifier(seed, num_rows, num_classes)
    log_probs = prediction["log_probs"].clamp(min=-7).log_softmax(-1)  # nobody certain
    diagram = reliability(log_probs, target, bins=bins)
    assert sum(diagram["count"]) == num_rows
    assert len(diagram["edges"]) == bins + 1
    total = 0.0
    for b, (count, confidence, accuracy) in enumerate(
        zip(diagram["count"], diagram["confidence"], diagram["accuracy"], strict=True)
    ):
        if count == 0:
            assert confidence is accuracy is None
            continue
        assert diagram["edges"][b] - 1e-6 <= confidence <= diagram["edges"][b + 1] + 1e-6
        total += count / num_rows * abs(confidence - accuracy)
    ece = measure("classification", {"log_probs": log_probs}, target, bins=bins)["ece"]
    assert total == pytest.approx(ece, abs=1e-12)


def test_certain_rows_join_the_last_bin_of_the_diagram() -> None:
    diagram = reliability(torch.tensor([[0.0, -torch.inf]] * 3), torch.tensor([0, 0, 1]), bins=5)
    assert diagram["count"] == [0, 0, 0, 0, 3]
    assert diagram["confidence"][-1] == 1
    assert diagram["accuracy"][-1] == pytest.approx(2 / 3)


def test_the_default_bins_are_the_specs() -> None:
    prediction, target = classifier(0, 50, 4)
    spec = EvaluateSpec()
    assert measure("classification", prediction, target) == measure(
        "classification", prediction, target, names=spec.metrics, bins=spec.bins
    )
