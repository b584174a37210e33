"""Laws of the run's table: gains are paired, signed toward better, seeded, and cover as they say."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_svc.aggregate.predictions import combine
from ensemble_svc.aggregate.subsets import mixtures
from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.bootstrap import percentile_interval, resampled_means
from ensemble_svc.evaluate.curve import curve_sizes, size_curve
from ensemble_svc.evaluate.metrics import METRICS, measure
from ensemble_svc.evaluate.summary import summarize
from ensemble_svc.spec.job import EvaluateSpec, Task

law = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**32 - 1)
members_and_rows = st.tuples(st.integers(1, 5), st.integers(1, 40))
tasks = pytest.mark.parametrize("task", ["classification", "regression"])
FEW = EvaluateSpec(resamples=100)


def trained(task: Task, seed: int, num_members: int, num_rows: int) -> tuple[dict[str, Tensor], Tensor]:
    """Members that know something of the target, each with errors of its own."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_members, num_rows, 3)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    if task == "regression":
        target = torch.randn(num_rows, 3, generator=generator, dtype=torch.float64) * 3
        log_variance = torch.randn(shape, generator=generator, dtype=torch.float64) * 0.3
        return {"mean": target + noise, "log_variance": log_variance}, target
    target = torch.randint(3, (num_rows,), generator=generator)
    logits = torch.nn.functional.one_hot(target, 3) + noise
    return {"log_probs": (2 * logits).log_softmax(-1)}, target


def combiner(task: Task, target: Tensor) -> Any:
    return partial(combine, target_ND=target) if task == "regression" else combine


def table(task: Task, members: dict[str, Tensor], target: Tensor, **options: Any) -> dict[str, Any]:
    ensemble = combiner(task, target)(members)
    defaults: dict[str, Any] = {"spec": FEW, "best": 0, "seed": 0}
    return summarize(task, members, ensemble, target, **(defaults | options))


@tasks
@law
@given(seeds, members_and_rows)
def test_the_table_holds_what_measure_says_of_each(task, seed, size) -> None:
    members, target = trained(task, seed, *size)
    found = table(task, members | {"target": target, "row": torch.arange(size[1])}, target)
    ensemble = combiner(task, target)(members)
    assert found["ensemble"] == measure(task, ensemble, target)
    assert found["rows"] == size[1]
    each = [measure(task, {key: v[k] for key, v in members.items()}, target) for k in range(size[0])]
    assert found["members"]["each"] == each
    for name, metric in METRICS.items():
        if task not in metric.tasks or not metric.usual:
            continue
        values = torch.tensor([one[name] for one in each], dtype=torch.float64)
        ends = (values.max().item(), values.min().item())
        best, worst = ends if metric.higher_is_better else ends[::-1]
        assert (found["members"]["best"][name], found["members"]["worst"][name]) == (best, worst)
        assert found["members"]["mean"][name] == pytest.approx(values.mean().item())
        std = values.std().item() if size[0] > 1 else 0
        assert found["members"]["std"][name] == pytest.approx(std)


@tasks
@law
@given(seeds, members_and_rows)
def test_gains_are_improvements_on_the_mean_and_on_the_chosen_member(task, seed, size) -> None:
    members, target = trained(task, seed, *size)
    best = seed % size[0]
    found = table(task, members, target, best=best)
    for name, value in found["ensemble"].items():
        sign = METRICS[name].sign
        over_mean, over_best = (
            found["gain"][which][name] for which in ("over_mean_member", "over_best_member")
        )
        assert over_mean["estimate"] == pytest.approx(
            sign * (value - found["members"]["mean"][name]), abs=1e-12
        )
        chosen = found["members"]["each"][best][name]
        assert over_best["estimate"] == pytest.approx(sign * (value - chosen), abs=1e-12)
        for gain in (over_mean, over_best):
            assert gain["low"] <= gain["high"]


@tasks
def test_an_ensemble_that_is_better_has_positive_gains_and_a_worse_one_negative(task) -> None:
    members, target = trained(task, 0, 6, 400)
    worse = {key: value.roll(1, dims=0) for key, value in combiner(task, target)(members).items()}
    bad = summarize(task, members, worse, target, spec=FEW, best=0, seed=0)["gain"]
    good = table(task, members, target)["gain"]
    assert good["over_mean_member"].keys() == bad["over_mean_member"].keys()
    for name in ("accuracy", "nll", "brier") if task == "classification" else ("rmse", "mae", "nll"):
        for which in ("over_mean_member", "over_best_member"):
            assert good[which][name]["low"] > 0
            if name != "nll" or task == "classification":  # the density moved with its row, not its target
                assert bad[which][name]["high"] < 0


@tasks
def test_an_ensemble_of_one_gains_exactly_nothing(task) -> None:
    members, target = trained(task, 0, 1, 300)
    for gains in table(task, members, target)["gain"].values():
        for gain in gains.values():
            assert gain == {"estimate": 0, "low": 0, "high": 0}
            assert all(math.copysign(1, value) == 1 for value in gain.values())  # prints 0, not -0


@tasks
def test_without_a_chosen_member_there_is_no_gain_over_it(task) -> None:
    members, target = trained(task, 0, 3, 20)
    assert table(task, members, target, best=None)["gain"].keys() == {"over_mean_member"}


@tasks
def test_the_interval_is_that_of_measuring_every_resample(task) -> None:
    """Against the slow way: draw the rows with the same generator and measure them."""
    members, target = trained(task, 3, 3, 30)
    ensemble = combiner(task, target)(members)
    generator = torch.Generator().manual_seed(5)
    gains: dict[str, list[float]] = {}
    for drawn in torch.randint(30, (100, 30), generator=generator):
        whole = measure(task, {key: v[drawn] for key, v in ensemble.items()}, target[drawn])
        each = [
            measure(task, {key: v[k, drawn] for key, v in members.items()}, target[drawn]) for k in range(3)
        ]
        for name, value in whole.items():
            mean = sum(one[name] for one in each) / 3
            gains.setdefault(name, []).append(METRICS[name].sign * (value - mean))
    found = table(task, members, target, seed=5)["gain"]["over_mean_member"]
    for name, values in gains.items():
        values_R = torch.tensor(values, dtype=torch.float64)
        if not METRICS[name].per_row:
            values_R += found[name]["estimate"] - values_R.mean()
        low, high = percentile_interval(values_R, FEW.confidence)
        assert (found[name]["low"], found[name]["high"]) == pytest.approx((low, high), abs=1e-10)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """300 data sets whose true gain in mean absolute error is known; 90 % intervals.

    Members share most of their error with the ensemble: intervals that did not pair the rows would
    be so wide as to cover always.
    """
    generator = torch.Generator().manual_seed(0)
    spec = EvaluateSpec(metrics=("mae",), resamples=200, confidence=0.9)
    truth = math.sqrt(2 / math.pi) * (math.sqrt(1 + 0.5**2) - 1)
    covered = 0
    for seed in range(300):
        shared, own = torch.randn(2, 1, 100, 1, generator=generator, dtype=torch.float64)
        found = summarize(
            "regression",
            {"mean": shared + 0.5 * own},
            {"mean": shared[0]},
            torch.zeros(100, 1),
            spec=spec,
            best=None,
            seed=seed,
        )
        gain = found["gain"]["over_mean_member"]["mae"]
        covered += gain["low"] <= truth <= gain["high"]
    assert 0.84 <= covered / 300 <= 0.95  # 0.90 with a standard error of 0.017


@law
@given(seeds, st.integers(1, 30), st.integers(1, 200))
def test_resamples_are_of_the_right_size_and_do_not_depend_on_the_chunks(seed, num_rows, chunk) -> None:
    statistics = torch.stack([torch.ones(num_rows), torch.arange(num_rows)], dim=1).double()
    means = resampled_means([statistics], num_resamples=50, seed=seed)
    torch.testing.assert_close(means[:, 0, 0], torch.ones(50, dtype=torch.float64))
    again = resampled_means([statistics], num_resamples=50, seed=seed, chunk_elements=chunk)
    torch.testing.assert_close(again, means)


@tasks
def test_the_seed_decides_the_interval_and_the_global_generator_has_no_part_in_it(task) -> None:
    members, target = trained(task, 0, 3, 50)
    state = torch.random.get_rng_state()
    first = table(task, members, target, seed=1)
    curve = size_curve(task, members, target, mixtures, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(1)
    assert table(task, members, target, seed=1) == first
    assert size_curve(task, members, target, mixtures, seed=1) == curve
    assert table(task, members, target, seed=2)["gain"] != first["gain"]


def test_an_impossible_truth_makes_infinities_and_no_nonsense_elsewhere() -> None:
    """One of 3 members gives one true class probability 0: its nll is infinite, the ensemble's is not."""
    members, target = trained("classification", 0, 3, 40)
    members["log_probs"][1, 7] = torch.where(torch.arange(3) == (target[7] + 1) % 3, 0.0, -torch.inf)
    found = table("classification", members, target)
    assert found["members"]["each"][1]["nll"] == math.inf
    assert math.isfinite(found["ensemble"]["nll"])
    assert found["gain"]["over_mean_member"]["nll"]["estimate"] == math.inf
    assert found["gain"]["over_mean_member"]["nll"]["high"] == math.inf
    assert math.isfinite(found["gain"]["over_mean_member"]["nll"]["low"])  # a third of draws miss the row
    assert math.isfinite(found["gain"]["over_best_member"]["nll"]["high"])
    assert all(math.isfinite(v) for v in found["gain"]["over_mean_member"]["brier"].values())


def test_faults_name_the_member() -> None:
    members, target = trained("regression", 0, 3, 10)
    ensemble = combine(members)
    with pytest.raises(EnsembleError, match=r"nll of 3 Gaussian members .* needs log_density"):
        summarize("regression", members, ensemble, target, spec=FEW, best=0, seed=0)
    named = EvaluateSpec(metrics=("rmse", "nll_gaussian"), resamples=100)
    assert summarize("regression", members, ensemble, target, spec=named, best=0, seed=0)["rows"] == 10
    with pytest.raises(EnsembleError, match="best is member 3; the members are 0 to 2"):
        table("regression", members, target, best=3)
    members["mean"][2, 4, 1] = math.nan
    with pytest.raises(EnsembleError, match=r"member 2: mean is .* in row 4"):
        summarize("regression", members, ensemble, target, spec=named, best=0, seed=0)
    with pytest.raises(EnsembleError, match="hold nothing"):
        summarize("classification", {}, {}, target, spec=FEW, best=0, seed=0)
    with pytest.raises(EnsembleError, match=r"must be \[members, rows, ...\]"):
        summarize("regression", {"mean": target}, ensemble, target, spec=FEW, best=0, seed=0)


@tasks
@law
@given(seeds, st.integers(1, 7))
def test_the_curve_ends_at_the_ensemble_and_starts_at_the_mean_member(task, seed, num_members) -> None:
    members, target = trained(task, seed, num_members, 20)
    curve = size_curve(task, members, target, mixtures, seed=seed, draws=8)
    assert [point["size"] for point in curve] == list(range(1, num_members + 1))
    found = table(task, members, target)
    for name, value in found["ensemble"].items():
        assert curve[-1][name] == pytest.approx({"mean": value, "low": value, "high": value}, rel=1e-12)
        assert curve[0][name]["mean"] == pytest.approx(found["members"]["mean"][name])
        for point in curve:
            assert point[name]["low"] <= point[name]["high"]


def test_many_members_make_a_curve_of_few_points() -> None:
    for num_members in (1, 2, 12, 13, 100, 5000):
        sizes = curve_sizes(num_members)
        assert sizes == sorted(set(sizes))
        assert (sizes[0], sizes[-1]) == (1, num_members)
        assert len(sizes) <= 12
    members, target = trained("classification", 0, 30, 50)
    curve = size_curve("classification", members, target, mixtures, seed=0, draws=5, names=("nll",))
    ensemble = measure("classification", combine(members), target)["nll"]
    assert curve[-1]["nll"] == pytest.approx({"mean": ensemble, "low": ensemble, "high": ensemble}, abs=1e-12)
    assert curve[0]["nll"]["mean"] > curve[3]["nll"]["mean"] > ensemble


@pytest.mark.slow
def test_a_thousand_resamples_of_50_000_rows_and_10_members_take_seconds() -> None:
    """In CPU seconds of one thread, so that a busy machine does not fail it."""
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.randn(10, 50_000, 10, generator=generator).log_softmax(-1)
    target = torch.randint(10, (50_000,), generator=generator)
    ensemble = combine({"log_probs": log_probs})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start = time.process_time()
    summarize(
        "classification", {"log_probs": log_probs}, ensemble, target, spec=EvaluateSpec(), best=0, seed=0
    )
    spent = time.process_time() - start
    torch.set_num_threads(threads)
    assert spent < 10
