"""The laws of several tasks: one task is that task alone, weight 0 teaches nothing, and what packs and resumes keep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from law_runs import Killed, assert_close, assert_same_bits, both, dying, job_of, payload_of, train

from ensemble_svc import pipeline
from ensemble_svc.batch import columns_of
from ensemble_svc.data.indices import fold_rows, member_rows
from ensemble_svc.data.sources import load_several
from ensemble_svc.errors import DataError
from ensemble_svc.evaluating import Wish, evaluate
from ensemble_svc.health.checkup import check
from ensemble_svc.local import LocalExecutor
from ensemble_svc.nn.build import build
from ensemble_svc.nn.heads import loss_rows
from ensemble_svc.nn.tasks import Heads, heads_of
from ensemble_svc.plan.cost import size_of
from ensemble_svc.planning import data_shape, prepare
from ensemble_svc.predictor import Ensemble
from ensemble_svc.report.html import render
from ensemble_svc.report.verdict import judge
from ensemble_svc.report.view import view_of
from ensemble_svc.reselecting import reselect
from ensemble_svc.spec.data import Csv, Npz, PythonSource
from ensemble_svc.spec.job import RESAMPLES, Bootstrap, KFold
from ensemble_svc.spec.losses import CrossEntropy, GaussianNll, Mse
from ensemble_svc.spec.tasks import TaskSpec
from ensemble_svc.store.members import sealed
from ensemble_svc.store.run import Run
from ensemble_svc.train.build import training_rows
from ensemble_svc.train.finish import scores

BODY = "weights.safetensors/body."
SCALE = "weights.safetensors/task_log_variance"
TABLE = {"source": "diabetes", "preprocess": ("standardize",), "validation": 0.2, "test": 0.3}
TASKS: dict[str, Any] = {
    "progression": {"kind": "regression"},
    "sex": {"kind": "classification", "weight": 0.5},
    "bp": {"kind": "regression", "weight": 2.0, "loss": "mse"},
}
BASE: dict[str, Any] = {"task": "multitask", "tasks": TASKS, "data": TABLE}


def tasks_job(**changes: Any) -> Any:
    return job_of(**{**BASE, **changes})


def of_task(found: dict[int, Any], task: str) -> dict[int, Any]:
    """Members' predictions of one task, under the names that the task alone gives them."""
    head = "predictions-test.safetensors/"
    return {
        k: {n.replace(f"{head}{task}/", head): t for n, t in one.items() if n.startswith(f"{head}{task}/")}
        for k, one in found.items()
    }


@pytest.mark.parametrize("pack", ["auto", "off"])
@pytest.mark.parametrize("loss", ["gaussian_nll", "mse"])
def test_one_regression_is_that_regression_alone(loss, pack, tmp_path) -> None:
    one = tasks_job(tasks={"progression": {"kind": "regression", "loss": loss}}, compute__pack=pack)
    alone = job_of(task="regression", data=TABLE, training__loss=loss, compute__pack=pack)
    found, expected = train(one, tmp_path / "one"), train(alone, tmp_path / "alone")
    wanted = {
        k: {n: t for n, t in m.items() if n.startswith("predictions-test")} for k, m in expected.items()
    }
    assert_same_bits(wanted, of_task(found, "progression"))
    for k, member in expected.items():
        for name, value in member.items():
            if name.startswith("weights"):
                assert torch.equal(value, found[k][name]), name


@pytest.mark.parametrize("pack", ["auto", "off"])
def test_one_classification_is_that_classification_alone(pack, tmp_path) -> None:
    data = {"source": "breast_cancer", "preprocess": ("standardize",), "validation": 0.2, "test": 0.3}
    one = tasks_job(tasks={"diagnosis": {"kind": "classification"}}, data=data, compute__pack=pack)
    found = train(one, tmp_path / "one")
    expected = train(job_of(data=data, compute__pack=pack), tmp_path / "alone")
    wanted = {
        k: {n: t for n, t in m.items() if n.startswith("predictions-test")} for k, m in expected.items()
    }
    assert_same_bits(wanted, of_task(found, "diagnosis"))


@pytest.mark.parametrize("weights", ["by_hand", "uncertainty"])
def test_packed_is_alone(weights, tmp_path) -> None:
    job = tasks_job(
        training__task_weights=weights,
        training__regularizers=({"name": "l2", "strength": 1e-3},),
        ensemble__resample="bootstrap",
    )
    assert len(payload_of(job, tmp_path)[1].slots) == 1
    assert_close(*both(job, tmp_path))


@pytest.mark.parametrize("model", ["mlp", "python"])
def test_a_network_of_ones_own_has_heads_too(model, tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_heads.py").write_text(
        "from torch import nn\n"
        "def make(shape, outputs):\n"
        "    return nn.Sequential(nn.Linear(shape[0], 8), nn.Tanh(), nn.Linear(8, outputs))\n"
    )
    chosen = (
        {"name": "python", "factory": "own_heads:make"}
        if model == "python"
        else {"name": "mlp", "hidden": (8,)}
    )
    together, apart = both(tasks_job(model=chosen, training__task_weights="uncertainty"), tmp_path)
    assert_close(together, apart)
    assert together[0][f"{BODY}2.bias" if model == "python" else f"{BODY}output.bias"].shape == (5,)


def python_rows(seed: int = 0, shuffled: bool = False, num: int = 240) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(num, 4)).astype(np.float32)
    colour = (x[:, 0] + 0.3 * draw.normal(size=num) > 0).astype(int)
    size = x[:, 1] * x[:, 2] + 0.1 * draw.normal(size=num)
    if shuffled:
        size = draw.permutation(size)
    return {"x": x, "y": {"size": size, "colour": colour}, "classes": {"colour": ("red", "blue")}}


def rows_job(folder: Path, monkeypatch: Any, tasks: dict[str, Any], **changes: Any) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    options = changes.pop("options", {})
    source = {"name": "python", "factory": "test_train_tasks:python_rows", "options": options}
    return job_of(
        task="multitask", tasks=tasks, data={"source": source, "validation": 0.2, "test": 0.3}, **changes
    )


def test_a_task_of_weight_0_teaches_nothing(tmp_path, monkeypatch) -> None:
    """Whatever its targets are, the trunk and the other heads end with the same bits; it is predicted all the same."""
    tasks = {"size": {"kind": "regression", "weight": 0.0}, "colour": {"kind": "classification"}}
    found = [
        train(
            rows_job(tmp_path, monkeypatch, tasks, options={"shuffled": shuffled}), tmp_path / str(shuffled)
        )
        for shuffled in (False, True)
    ]
    for k, member in found[0].items():
        for name, value in member.items():
            if name.startswith(BODY) or "colour" in name:
                assert torch.equal(value, found[1][k][name]), name
    assert found[0][0]["predictions-test.safetensors/size/mean"].isfinite().all()
    taught = {"size": {"kind": "regression"}, "colour": {"kind": "classification"}}
    other = train(rows_job(tmp_path, monkeypatch, taught), tmp_path / "taught")
    trunk = f"{BODY}hidden.0.linear.weight"
    assert not torch.allclose(other[0][trunk], found[0][0][trunk], atol=1e-3)


def random_heads(draw: st.DrawFn, *, learned: bool) -> Heads:
    kinds = draw(st.lists(st.sampled_from(["cross_entropy", "gaussian_nll", "mse"]), min_size=1, max_size=4))
    weights = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=len(kinds), max_size=len(kinds)))
    weights[0] = weights[0] or 1.0
    tasks, classes = {}, {}
    for i, (kind, weight) in enumerate(zip(kinds, weights, strict=True)):
        loss = {"cross_entropy": CrossEntropy(), "gaussian_nll": GaussianNll(), "mse": Mse()}[kind]
        sort = "classification" if kind == "cross_entropy" else "regression"
        tasks[f"t{i}"] = TaskSpec(kind=sort, weight=weight, loss=loss)
        classes[f"t{i}"] = ("a", "b", "c") if sort == "classification" else ()
    return heads_of(tasks, classes, learned=learned)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), learned=st.booleans(), seed=st.integers(0, 99))
def test_the_loss_is_the_weighted_sum_with_kendalls_variances(data, learned, seed) -> None:
    heads = random_heads(data.draw, learned=learned)
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(2, 6, heads.num_outputs, generator=generator)
    y = torch.randn(2, 6, len(heads.each), generator=generator)
    for head in heads.each:
        if isinstance(head.loss, CrossEntropy):
            y[..., head.column] = torch.randint(3, (2, 6), generator=generator).float()
    log_variance = torch.randn(2, len(heads.each), generator=generator)
    for k in range(2):
        expected = torch.zeros(6)
        for head in heads.each:
            rows = loss_rows(head.loss, head.outputs(outputs[k]), head.target(y[k]))
            s = log_variance[k, head.column]
            if learned and isinstance(
                head.loss, Mse
            ):  # minus the log likelihood of N(f, exp(s)), but for log 2 pi / 2
                normal = torch.distributions.Normal(head.outputs(outputs[k])[:, 0], (s / 2).exp())
                rows = -normal.log_prob(head.target(y[k])[:, 0]) - 0.5 * np.log(2 * np.pi)
            elif learned and isinstance(head.loss, CrossEntropy):
                rows = rows / s.exp() + s / 2
            expected = expected + head.weight * rows
        each = [
            torch.stack([loss_rows(h.loss, h.outputs(outputs[j]), h.target(y[j])) for j in range(2)])
            for h in heads.taught
        ]
        found = heads.total(each, log_variance if learned else None)[k]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        heads.loss_rows(outputs[0], y[0]),
        sum(h.weight * loss_rows(h.loss, h.outputs(outputs[0]), h.target(y[0])) for h in heads.taught),
    )


@pytest.mark.parametrize("pack", ["auto", "off"])
def test_log_variances_move_to_where_the_likelihood_is_largest(pack, tmp_path, monkeypatch) -> None:
    """Each member has its own; for a squared error it nears the log of the mean residual, the stationary point."""
    tasks = {"size": {"kind": "regression", "loss": "mse"}, "colour": {"kind": "classification"}}
    job = rows_job(
        tmp_path, monkeypatch, tasks, compute__pack=pack, training__task_weights="uncertainty", training__epochs=150,
        training__optimizer={"name": "adamw", "lr": 0.03, "weight_decay": 0.0}, model={"name": "mlp", "hidden": ()},
    )  # fmt: skip
    found = train(job, tmp_path)
    learned = torch.stack([found[k][SCALE] for k in range(3)])
    assert learned.shape == (3, 2)
    assert len(learned[:, 0].unique()) == 3
    residual = torch.stack([found[k]["weights.safetensors/noise_log_variance"][0] for k in range(3)])
    torch.testing.assert_close(learned[:, 0], residual, rtol=0.0, atol=0.1)
    by_hand = train(
        job.model_copy(update={"training": job.training.model_copy(update={"task_weights": "by_hand"})}),
        tmp_path / "h",
    )
    assert SCALE not in by_hand[0]


@pytest.mark.parametrize("init, sick", [("zeros", True), ("he", False)])
def test_learned_variances_alone_are_no_better_than_guessing(init, sick, tmp_path) -> None:
    """They bring the loss down by themselves, whatever the network does."""
    tasks = {"progression": {"kind": "regression", "loss": "mse"}, "sex": {"kind": "classification"}}
    job = tasks_job(
        tasks=tasks,
        model={"name": "mlp", "hidden": (16,), "activation": "tanh", "init": init},
        training={
            "epochs": 20,
            "task_weights": "uncertainty",
            "optimizer": {"name": "adamw", "lr": 0.02},
            "schedule": "constant",
        },
    )
    train(job, tmp_path)
    reasons = [event["sick"] for event in sealed(tmp_path).values()]
    assert [reason is not None for reason in reasons] == [sick] * len(reasons)


def test_a_gaussian_of_its_own_variance_learns_no_further_one(tmp_path) -> None:
    """So a job of such tasks alone is the same by hand and by uncertainty."""
    tasks = {"progression": {"kind": "regression"}, "bp": {"kind": "regression"}}
    found = [
        train(tasks_job(tasks=tasks, training__task_weights=w), tmp_path / w)
        for w in ("by_hand", "uncertainty")
    ]
    assert_same_bits(*found)


@pytest.mark.parametrize("weights", ["by_hand", "uncertainty"])
@pytest.mark.parametrize("pack", ["auto", "off"])
def test_resumed_is_uninterrupted(weights, pack, tmp_path) -> None:
    job = tasks_job(
        compute__pack=pack,
        training__epochs=4,
        training__task_weights=weights,
        training__regularizers=("mixup",),
        training__early_stopping={"metric": "nll", "patience": 3},
        training__average="ema",
    )
    undisturbed = train(job, tmp_path / "a", commit_every_s=0)
    with pytest.raises(Killed):
        train(job, tmp_path / "b", report=dying(2), commit_every_s=0)
    assert_same_bits(undisturbed, train(job, tmp_path / "b", commit_every_s=0))


def test_a_stream_of_several_tasks(tmp_path) -> None:
    job = tasks_job(data={**TABLE, "stream": "on"}, ensemble__resample="bootstrap")
    assert_close(*both(job, tmp_path))


def test_the_watch_sums_the_tasks_nll_by_their_weights() -> None:
    heads = heads_of(
        {"a": TaskSpec(kind="regression", weight=2.0), "b": TaskSpec(kind="classification", weight=0.5),
         "c": TaskSpec(kind="regression", weight=0.0)},
        {"a": (), "b": ("x", "y"), "c": ()},
    )  # fmt: skip
    outputs = torch.randn(3, 7, heads.num_outputs)
    scale = {
        "target_mean": torch.zeros(3, 3),
        "target_scale": torch.ones(3, 3),
        "noise_log_variance": torch.zeros(3, 3),
    }
    target = torch.cat([torch.randn(7, 1), torch.ones(7, 1), torch.randn(7, 1)], dim=1)
    found = scores(heads.predict(outputs, scale), target, heads)
    torch.testing.assert_close(found["nll"], 2 * found["a/nll"] + 0.5 * found["b/nll"])
    assert {"a/rmse", "b/accuracy", "c/rmse"} <= found.keys()
    alone = scores(
        {k.removeprefix("a/"): v for k, v in heads.predict(outputs, scale).items() if k[0] == "a"},
        target[:, :1],
    )
    torch.testing.assert_close(found["a/nll"], alone["nll"])


@pytest.mark.parametrize("resample", list(RESAMPLES), ids=lambda c: c.model_fields["name"].default)
def test_bags_teach_every_task_and_folds_are_those_of_the_first_classes(resample) -> None:
    job = tasks_job(ensemble__resample=resample.model_fields["name"].default)
    prepared = prepare(job, Path.cwd())
    sex = prepared.dataset.part("sex")
    split, kinds = prepared.split, ("regression", "classification", "regression")
    common = {"job_seed": 0, "member": 1}
    rows = member_rows(
        job.ensemble.resample, split, prepared.dataset.y, task="multitask", kinds=kinds, **common
    )
    assert set(sex.y[rows]) == {0, 1}
    if not isinstance(job.ensemble.resample, Bootstrap):
        alone = member_rows(job.ensemble.resample, split, sex.y, task="classification", **common)
        assert np.array_equal(rows, alone)
    if isinstance(job.ensemble.resample, KFold):
        fold = fold_rows(job.ensemble.resample, split, sex.y, task="classification", **common)
        assert np.intersect1d(rows, fold).size == 0


def test_splits_are_stratified_by_the_first_classes() -> None:
    prepared = prepare(tasks_job(), Path.cwd())
    y, split = prepared.dataset.part("sex").y, prepared.split
    share = y.mean()
    for rows in (split.train, split.validation, split.test):
        assert abs(y[rows].sum() - share * len(rows)) < 1.5
    numbers = {name: task for name, task in TASKS.items() if name != "sex"}
    assert prepare(tasks_job(tasks=numbers), Path.cwd()).split.hash != split.hash


def test_the_planner_counts_all_heads() -> None:
    job = tasks_job()
    prepared = prepare(job, Path.cwd())
    shape = data_shape(job, prepared)
    assert shape.num_answers == 2 + 2 + 1
    net = build(job.model, shape.input_shape, shape.num_answers)
    size = size_of(job.model, shape.input_shape, shape.num_answers)
    assert size is not None
    assert size.parameters == sum(p.numel() for p in net.parameters())


def test_tasks_are_part_of_a_members_identity(tmp_path) -> None:
    digests = set()
    for changed in (
        TASKS,
        {**TASKS, "sex": {"kind": "classification", "weight": 0.6}},
        {**TASKS, "bp": {"kind": "regression"}},
    ):
        _, plan = payload_of(tasks_job(tasks=changed), tmp_path)
        digests |= {plan.slots[0].pack.members[0].digest}
    assert len(digests) == 3


def test_a_checkup_sees_the_sum_of_the_tasks(tmp_path) -> None:
    payload, plan = payload_of(tasks_job(), tmp_path)
    members = plan.slots[0].pack.members
    found = check(members[0], payload.dataset, payload.schema, training_rows(payload, members)[0])
    assert np.isfinite([found.loss, found.guess, found.few_after]).all()
    assert found.few_after < found.few_before


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("tasks")
    job = tasks_job(compute__executor="local", evaluate={"resamples": 100})
    return pipeline.train(job, out=folder / "run", directory=folder, executor=LocalExecutor(retries=0))


def test_a_run_measures_every_task(run) -> None:
    for summary in run.metrics().values():
        assert list(summary["tasks"]) == list(TASKS)
        first = summary["tasks"]["progression"]
        assert summary["task"] == "progression"
        assert {key: summary[key] for key in first} == json.loads(json.dumps(first))
        assert "rmse" in summary["tasks"]["bp"]["ensemble"]
        assert "accuracy" in summary["tasks"]["sex"]["ensemble"]
        for own in summary["tasks"].values():  # Jensen: the mixture is at least as good as its mean member
            assert own["ensemble"]["nll"] <= own["members"]["mean"]["nll"] + 1e-6


def test_predictions_are_kept_by_task(run) -> None:
    found = run.predictions("test")
    assert found["sex/log_probs"].shape[::2] == (3, 2)
    assert found["sex/target"].dtype == torch.int64
    assert found["bp/mean"].shape == found["bp/log_variance"].shape == (3, *found["bp/target"].shape)
    assert "target" not in found


def test_the_report_and_the_verdict_speak_of_every_task(run) -> None:
    view = view_of(run)
    page = render(view)
    for task in TASKS:
        assert f"{task}: test" in page
        assert f"{task}: " in judge(view.metrics, view.manifest).detail
    assert "sex: Accuracy" in page
    assert page.count("Members against the ensemble</h3>") == 3
    assert page.count('id="members-against"') == 1


def test_an_ensemble_predicts_every_task(run, tmp_path) -> None:
    ensemble = Ensemble.load(run.path)
    prepared = prepare(run.job(), tmp_path)
    rows = prepared.split.test
    x, kept = prepared.dataset.x[rows], run.predictions("test")
    found = ensemble.predict(x)
    assert list(found.tasks) == list(TASKS)
    assert np.array_equal(found.mean, found.tasks["progression"].mean)
    torch.testing.assert_close(torch.from_numpy(found.tasks["sex"].mean), kept["sex/log_probs"].exp().mean(0))
    torch.testing.assert_close(torch.from_numpy(found.tasks["bp"].mean), kept["bp/mean"].mean(0))
    table = columns_of(ensemble, x, rows)
    assert {
        "row",
        "progression",
        "progression_total",
        "bp",
        "sex",
        "sex_p_1",
        "sex_p_2",
        "sex_entropy",
    } <= table.keys()
    assert set(table["sex"]) <= {"1", "2"}


def test_a_run_is_evaluated_on_other_rows_task_by_task(run, tmp_path) -> None:
    found = evaluate(run, Wish(data="diabetes"), tmp_path).metrics["data"]
    assert list(found["tasks"]) == list(TASKS)
    assert found["rows"] == 442


def test_the_same_ensemble_decided_anew_measures_the_same(run, tmp_path) -> None:
    before, manifest = run.metrics(), run.manifest()["ensemble"]
    decision = reselect(run, run.job(), directory=tmp_path)
    assert list(decision.members) == list(manifest["members"])
    assert run.metrics() == before


def write_table(folder: Path, **columns: Any) -> Csv:
    draw = np.random.default_rng(0)
    table = {"a": draw.normal(size=30).round(3), "b": draw.normal(size=30).round(3), **columns}
    lines = [",".join(table), *(",".join(map(str, row)) for row in zip(*table.values(), strict=True))]
    (folder / "rows.csv").write_text("\n".join(lines))
    return Csv(path="rows.csv", target=("size", "colour"))


KINDS: Any = {"size": "regression", "colour": "classification"}


def test_every_source_gives_the_same_rows(tmp_path, monkeypatch) -> None:
    """A table, arrays by name, and a function with dicts."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    size, colour = np.arange(30.0), np.array(["red", "blue", "blue"] * 10)
    table = load_several(write_table(tmp_path, size=size, colour=colour), KINDS, directory=tmp_path)
    np.savez(
        tmp_path / "rows.npz",
        x=table.x,
        size=size,
        colour=(colour == "red").astype(int),
        colour_names=["blue", "red"],
    )
    arrays = load_several(Npz(path="rows.npz"), KINDS, directory=tmp_path)
    for found in (table, arrays):
        assert found.tasks == (("size", ()), ("colour", ("blue", "red")))
        assert found.targets == ("size", "colour")
        assert not found.classes
        assert np.array_equal(found.y[:, 0], size)
        assert np.array_equal(found.part("colour").y, colour == "red")
    assert np.array_equal(table.x, arrays.x)
    own = PythonSource(factory="test_train_tasks:python_rows")
    assert load_several(own, KINDS, directory=Path(__file__).parent).tasks[1] == ("colour", ("red", "blue"))


def missing_task() -> dict[str, Any]:
    rows = python_rows()
    del rows["y"]["colour"]
    return rows


def further_task() -> dict[str, Any]:
    rows = python_rows()
    rows["y"]["shape"] = rows["y"]["size"]
    return rows


def no_dict() -> dict[str, Any]:
    return {**python_rows(), "y": np.zeros(240), "classes": None}


def wide_task() -> dict[str, Any]:
    rows = python_rows()
    rows["y"]["size"] = np.ones((240, 2))
    return rows


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("missing_task", "'y' has no task 'colour'"),
        ("further_task", "'y' has 'shape', which is no task"),
        ("no_dict", "'y' must be a dict with an entry for each task \\(size, colour\\)"),
        ("wide_task", "the target 'size' has 2 columns"),
    ],
)
def test_what_a_function_returns_is_checked(factory, words) -> None:
    source = PythonSource(factory=f"test_train_tasks:{factory}")
    with pytest.raises(DataError, match=words):
        load_several(source, KINDS, directory=Path(__file__).parent)


def test_faults_of_a_tables_targets_are_told(tmp_path) -> None:
    with pytest.raises(DataError, match="'colour'"):
        load_several(write_table(tmp_path, size=np.arange(30)), KINDS, directory=tmp_path)
    missing = ["", *["red", "blue"] * 14, "red"]
    with pytest.raises(DataError, match="row 1, column 'colour'.*the label is missing"):
        load_several(write_table(tmp_path, size=np.arange(30), colour=missing), KINDS, directory=tmp_path)
    source = write_table(tmp_path, size=["", *range(29)], colour=["red", "blue"] * 15)
    job = job_of(task="multitask", data={"source": {**source.model_dump(), "path": str(tmp_path / "rows.csv")}},
                 tasks={"size": {"kind": "regression"}, "colour": {"kind": "classification"}})  # fmt: skip
    with pytest.raises(DataError, match="row 1, target 'size': nan"):
        prepare(job, tmp_path)
    np.savez(tmp_path / "rows.npz", x=np.zeros((4, 2)), size=np.zeros(4))
    with pytest.raises(DataError, match="there is no array 'colour'"):
        load_several(Npz(path="rows.npz"), KINDS, directory=tmp_path)
    with pytest.raises(DataError, match=r"tasks\.weight: the source 'diabetes' has no such column"):
        prepare(tasks_job(tasks={"weight": {"kind": "regression"}}), tmp_path)


def test_a_class_that_no_row_of_the_training_split_has_is_told_with_its_task(tmp_path) -> None:
    np.savez(tmp_path / "rows.npz", x_train=np.random.default_rng(0).normal(size=(40, 3)), x_test=np.ones((4, 3)),
             size_train=np.arange(40.0), size_test=np.arange(4.0), colour_train=np.arange(40) % 2,
             colour_test=np.full(4, 2))  # fmt: skip
    job = job_of(
        task="multitask",
        data={"source": {"name": "npz", "path": str(tmp_path / "rows.npz")}, "test": "test"},
        tasks={"size": {"kind": "regression"}, "colour": {"kind": "classification"}},
    )
    with pytest.raises(DataError, match="task 'colour': classes absent from the training split: 2"):
        prepare(job, tmp_path)
