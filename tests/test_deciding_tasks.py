"""Ensembles of members that answer several tasks: chosen for all of them, calibrated and compared for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ensemble_svc import pipeline
from ensemble_svc.aggregate.bytask import TasksPool, decide_tasks
from ensemble_svc.aggregate.choosing import decide
from ensemble_svc.aggregate.decision import HeldOut, apply
from ensemble_svc.aggregate.pools import LikelihoodPool
from ensemble_svc.aggregate.selection import greedy, top_k
from ensemble_svc.cli.main import app
from ensemble_svc.comparing import compare
from ensemble_svc.deciding import held_out
from ensemble_svc.errors import DataError, SpecError
from ensemble_svc.evaluate.metrics import measure
from ensemble_svc.local import LocalExecutor
from ensemble_svc.nn.tasks import part_of
from ensemble_svc.planning import prepare
from ensemble_svc.predictor import Ensemble
from ensemble_svc.report.decision import decided
from ensemble_svc.reselecting import reselect
from ensemble_svc.scoring import measured_by
from ensemble_svc.spec.aggregate import AggregateSpec, Greedy, Temperature
from ensemble_svc.spec.load import parse_job
from ensemble_svc.spec.tasks import TaskSpec
from ensemble_svc.splits import targets_of, with_targets
from ensemble_svc.store.run import Run

seeds = st.integers(0, 2**32 - 1)
TASKS = {
    "progression": {"kind": "regression"},
    "sex": {"kind": "classification", "weight": 0.5},
}
BASE: dict[str, Any] = {
    "name": "several",
    "task": "multitask",
    "tasks": TASKS,
    "data": {"source": "diabetes", "preprocess": ["standardize"], "validation": 0.3, "test": 0.3},
    "model": {"name": "mlp", "hidden": [16]},
    "training": {"epochs": 4, "batch_size": 64, "optimizer": {"name": "adamw", "lr": 0.01}},
    "ensemble": {"members": 5, "resample": "bootstrap"},
    "evaluate": {"resamples": 100},
    "compute": {"executor": "local", "measure": "off"},
}
AGGREGATE = {"select": {"name": "greedy", "picks": 8}, "calibrate": "temperature", "conformal": 0.2}


def train(out: Path, **changes: Any) -> Run:
    job = parse_job(BASE | changes)
    return pipeline.train(job, out=out, directory=Path.cwd(), executor=LocalExecutor(retries=0))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("chosen") / "run", aggregate=AGGREGATE)


def likelihoods(seed: int, num_members: int, num_rows: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return -torch.rand(num_members, num_rows, generator=draw, dtype=torch.float64) * 4


@given(seeds, st.integers(2, 6), st.floats(0.1, 3.0), st.floats(0.0, 3.0))
@settings(max_examples=30)
def test_members_are_scored_by_the_weighted_mean_of_the_tasks_losses(
    seed: int, num_members: int, first: float, second: float
) -> None:
    each = [likelihoods(seed + k, num_members, 17) for k in range(2)]
    pool = TasksPool(tuple(map(LikelihoodPool, each)), (first, second))
    found = greedy(pool, 4)
    for size in (1, 2):
        start = pool.empty()
        for pick in found.picks[: size - 1]:
            start = pool.add(start, pick)
        scores = pool.trial(start, size - 1, range(num_members))
        for k in range(num_members):
            picks = [*found.picks[: size - 1], k]
            losses = [-(torch.logsumexp(own[picks], 0) - np.log(size)).mean().item() for own in each]
            expected = (first * losses[0] + second * losses[1]) / (first + second)
            assert scores[k] == pytest.approx(expected)
    alone = [-own.mean(1) for own in each]
    mean = first * alone[0] + second * alone[1]
    assert top_k(pool, 1).chosen == (int(mean.argmin()),)


@given(seeds, st.integers(2, 6))
@settings(max_examples=30)
def test_one_task_or_one_that_counts_decides_as_it_would_alone(seed: int, num_members: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_members, 40, 3, generator=draw)
    target = torch.randint(3, (40,), generator=draw)
    rows = HeldOut("validation", {"log_probs": logits.log_softmax(2)}, target)
    other = HeldOut("validation", {"log_probs": logits.flip(0).log_softmax(2)}, target)
    spec = AggregateSpec(select=Greedy(picks=5), calibrate=Temperature(), conformal=0.3)
    ids = [f"m{k}" for k in range(num_members)]
    alone = decide(spec, ids, rows, seed=3)
    tasks = {name: TaskSpec(kind="classification", weight=w) for name, w in (("a", 2.0), ("b", 0.0))}
    both = decide_tasks(spec, ids, {"a": rows, "b": other}, tasks, seed=3)
    assert both.members == alone.members
    assert both.weights == alone.weights
    assert both.of("a").calibration == alone.calibration
    assert both.of("a").conformal == alone.conformal


def test_a_run_chooses_on_validation_rows_and_calibrates_each_task(chosen: Run, tmp_path: Path) -> None:
    job, ensemble = chosen.job(), chosen.manifest()["ensemble"]
    assert ensemble["rows"] == "validation"
    assert ensemble["calibration"] is None
    assert ensemble["tasks"]["progression"]["calibration"]["kind"] == "variance_scale"
    assert ensemble["tasks"]["sex"]["calibration"]["kind"] == "temperature"
    split = with_targets(job, chosen.predictions("validation"))
    rows = held_out(job, {"validation": split})
    assert rows is not None
    for name, own in chosen.metrics()["test"]["tasks"].items():
        assert 0 < own["coverage"]["covered"] <= 1
        assert "over_equal_mixture" in own["gain"], name
    said = " ".join(decided(chosen.manifest(), chosen.metrics()))
    assert "progression: Calibrated: variances times" in said
    assert "sex: Calibrated: " in said
    assert "sex: Meant to hold the truth in 80%" in said


def test_no_reported_row_decides(chosen: Run, tmp_path: Path) -> None:
    """The decision is a function of the validation rows' predictions alone."""
    job = chosen.job()
    split = with_targets(job, chosen.predictions("validation"))
    again = reselect_decision(job, chosen, {"validation": split})
    stored = {k: v for k, v in chosen.manifest()["ensemble"].items() if k != "version"}
    assert again == stored


def reselect_decision(job: Any, run: Run, splits: Any) -> Any:
    from ensemble_svc.deciding import decided as decide_for

    decision = decide_for(job, job.aggregate, run.manifest()["candidates"], held_out(job, splits))
    return decision.model_dump(mode="json")


def test_reselect_is_what_training_with_it_would_have_decided(
    plain: Run, chosen: Run, tmp_path: Path
) -> None:
    import shutil

    run = Run(Path(shutil.copytree(plain.path, tmp_path / "run")))
    reselect(run, parse_job(run.job().model_dump(mode="json") | {"aggregate": AGGREGATE}), directory=tmp_path)
    assert run.metrics() == chosen.metrics()
    for name in ("members", "weights", "tasks"):
        assert run.manifest()["ensemble"][name] == chosen.manifest()["ensemble"][name]


def test_it_predicts_and_is_evaluated_as_it_was_measured(chosen: Run, tmp_path: Path) -> None:
    job, ensemble = chosen.job(), Ensemble.load(chosen.path)
    prepared = prepare(job, tmp_path)
    x = prepared.dataset.x[prepared.split.test]
    found, combined = ensemble.predict(x), ensemble.combined(ensemble.members(x))
    target = with_targets(job, chosen.predictions("test"))["target"]
    for (name, task), own in zip(job.tasks.items(), targets_of(job, target), strict=True):
        stored = chosen.metrics()["test"]["tasks"][name]
        one = part_of(combined, name)
        metric = "accuracy" if task.kind == "classification" else "rmse"
        spec = measured_by(job, task.kind)
        assert spec.metrics == "auto"
        assert measure(task.kind, one, own)[metric] == pytest.approx(stored["ensemble"][metric], rel=1e-5)
        region = found.tasks[name].region
        if task.kind == "classification":
            assert region["inside"].mean(0).sum() == pytest.approx(stored["coverage"]["size"], rel=1e-5)
            assert measure(task.kind, one, own)["nll"] == pytest.approx(stored["ensemble"]["nll"], rel=1e-5)
        else:
            width = (region["high"] - region["low"]).mean()
            assert width == pytest.approx(stored["coverage"]["size"], rel=1e-5)


def test_runs_are_compared_task_by_task(plain: Run, chosen: Run) -> None:
    found = compare([plain, chosen])
    job = plain.job()
    for name, task in job.tasks.items():
        first, second = (one["tasks"][name] for one in found["runs"])
        assert first["gain"] == {}
        for run, numbers in ((plain, first), (chosen, second)):
            stored = run.metrics()["test"]["tasks"][name]["ensemble"]
            assert numbers["metrics"] == pytest.approx(stored)
        sign = -1 if task.kind == "regression" else 1
        metric = "rmse" if task.kind == "regression" else "accuracy"
        gain = second["gain"][metric]
        expected = sign * (second["metrics"][metric] - first["metrics"][metric])
        assert gain["estimate"] == pytest.approx(expected, abs=1e-12)
        assert gain["low"] <= gain["estimate"] <= gain["high"]
    printed = CliRunner().invoke(app, ["compare", str(plain.path), str(chosen.path)])
    assert printed.exit_code == 0, printed.output
    assert "progression: 133 test rows" in printed.output
    assert "sex: 133 test rows" in printed.output


def test_runs_of_other_tasks_are_not_compared(plain: Run, tmp_path: Path) -> None:
    other = train(
        tmp_path / "run", tasks={"progression": {"kind": "regression"}, "bp": {"kind": "regression"}}
    )
    with pytest.raises(DataError, match="other"):
        compare([plain, other])


def test_the_calibration_lowers_the_loss_of_the_rows_it_is_fitted_on(chosen: Run) -> None:
    """Variance scale and temperature are fitted by likelihood on one half, so on all of them they can hardly lose."""
    from ensemble_svc.aggregate.decision import Decision
    from ensemble_svc.store.manifest import decision_of

    job = chosen.job()
    decision = Decision.model_validate(_frozen(decision_of(chosen.manifest())))
    ids = list(chosen.manifest()["candidates"])
    split = with_targets(job, chosen.predictions("validation"))
    index = torch.tensor([ids.index(member) for member in decision.members])
    for (name, task), own in zip(job.tasks.items(), targets_of(job, split["target"]), strict=True):
        members = {key: value[index] for key, value in part_of(split, name).items() if key != "target"}
        target = own if task.kind == "regression" else None
        with_it, without = (
            measure(task.kind, apply(one, members, target), own)["nll"]
            for one in (decision.of(name), decision)
        )
        assert with_it <= without + 0.02


def _frozen(value: Any) -> Any:
    from ensemble_svc.registry import frozen

    return frozen(value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"aggregate": {"combine": "vote"}, "tasks": {"progression": {"kind": "regression"}}},
            "'vote' is for classification, not tasks of which none is one",
        ),
        ({"aggregate": {"combine": "stacking", "select": "diverse"}}, "use one"),
        ({"aggregate": {"select": {"name": "greedy", "score": "rmse"}}}, "not a measure of multitask"),
        ({"data": BASE["data"] | {"validation": "oof"}}, "needs folds"),
        (
            {"data": BASE["data"] | {"validation": "oob"}, "aggregate": {"combine": "stacking"}},
            "cannot be decided on rows that are oob",
        ),
        (
            {"data": BASE["data"] | {"validation": "oob"}, "aggregate": {"soup": "uniform"}},
            "cannot be decided on rows that are oob",
        ),
    ],
)
def test_what_no_task_can_have_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse_job(BASE | changes)


def test_it_needs_held_out_rows() -> None:
    data = BASE["data"] | {"validation": 0}
    for own in ({"select": "greedy"}, {"calibrate": "temperature"}, {"conformal": 0.1}):
        with pytest.raises(SpecError, match="held-out rows"):
            parse_job(BASE | {"data": data, "aggregate": own})


def test_what_several_members_of_a_training_are_worth_is_told_by_task(tmp_path: Path) -> None:
    run = train(
        tmp_path / "run",
        model={"name": "mlp", "hidden": [16], "dropout": 0.2},
        ensemble={"members": 3, "mc_samples": 4},
    )
    summary = run.metrics()["test"]
    for own in summary["tasks"].values():
        assert own["trainings"]["number"] == 3
        assert own["trainings"]["members_of_each"] == 4
        assert "nll" in own["trainings"]["equivalents"]
    assert summary["trainings"] == summary["tasks"]["progression"]["trainings"]
    said = [s for s in decided(run.manifest(), run.metrics()) if "members of one training" in s]
    assert [s.partition(":")[0] for s in said] == list(TASKS)


def test_the_exported_graph_has_each_tasks_calibration(chosen: Run) -> None:
    from ensemble_svc.serving.whole import Whole

    ensemble = Ensemble.load(chosen.path)
    x = prepare(chosen.job(), Path.cwd()).dataset.x[:20]
    found = Whole(ensemble)(torch.from_numpy(x))
    expected = ensemble.predict(x)
    for name in TASKS:
        key = "probabilities" if name == "sex" else "mean"
        assert np.allclose(found[f"{name}/{key}"].numpy(), expected.tasks[name].mean, atol=1e-5)
    total = expected.tasks["progression"].uncertainty["total"]
    assert np.allclose(found["progression/total"].numpy(), total, rtol=1e-4)
