"""Runs of several tasks under every choice of an ensemble: as one task decides, packed and alone, and decided anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
import torch
from safetensors.torch import load
from sklearn.datasets import load_diabetes

from ensemble_svc import pipeline
from ensemble_svc.aggregate.likelihood import log_likelihood
from ensemble_svc.aggregate.stacking import by_likelihood
from ensemble_svc.errors import DataError
from ensemble_svc.local import LocalExecutor
from ensemble_svc.nn.tasks import part_of
from ensemble_svc.planning import prepare
from ensemble_svc.predictor import Ensemble
from ensemble_svc.report.decision import decided
from ensemble_svc.reselecting import reselect
from ensemble_svc.spec.load import parse_job
from ensemble_svc.splits import targets_of, with_targets
from ensemble_svc.store.run import Run
from ensemble_svc.store.status import damage

TASKS = {"progression": {"kind": "regression"}, "sex": {"kind": "classification", "weight": 0.5}}
SOURCE = {"preprocess": ["standardize"], "validation": 0.3, "test": 0.3}
BASE: dict[str, Any] = {
    "name": "several",
    "task": "multitask",
    "tasks": TASKS,
    "data": {"source": "diabetes", **SOURCE},
    "model": {"name": "mlp", "hidden": [16]},
    "training": {"epochs": 4, "batch_size": 64, "optimizer": {"name": "adamw", "lr": 0.01}},
    "ensemble": {"members": 4, "share_init": True},
    "evaluate": {"resamples": 100},
    "compute": {"executor": "local", "measure": "off"},
}


def train(out: Path, **changes: Any) -> Run:
    job = parse_job({**BASE, **changes})
    return pipeline.train(job, out=out, directory=Path.cwd(), executor=LocalExecutor(retries=0))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("tasks") / "run").path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    """A copy that a test may change."""
    return Run(Path(shutil.copytree(trained, tmp_path / "run")))


def anew(run: Run, **aggregate: Any) -> None:
    """Decide the run's ensemble by other choices."""
    job = run.job().model_dump(mode="json") | {"aggregate": aggregate}
    reselect(run, parse_job(job), directory=Path.cwd())


CHOICES: list[dict[str, Any]] = [
    {},
    {"select": {"name": "top_k", "k": 2}, "calibrate": "auto", "conformal": 0.2},
    {"select": {"name": "greedy", "picks": 6}, "calibrate": "auto"},
    {"select": {"name": "diverse", "k": 2}},
    {"combine": "stacking", "calibrate": "auto", "conformal": 0.2},
    {"soup": "uniform"},
    {"soup": {"name": "greedy", "barrier": 1.0}, "select": {"name": "top_k", "k": 3}},
]
OF_CLASSES: list[dict[str, Any]] = [
    {"combine": "geometric", "calibrate": "vector"},
    {"combine": "vote"},
    {"select": "diverse", "calibrate": "isotonic"},
]


def nearly(ours: Any, theirs: Any, where: str) -> None:
    """Equal but for round-off, however nested."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key, value in theirs.items():
            nearly(ours[key], value, f"{where}.{key}")
    elif isinstance(theirs, list):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            nearly(a, b, f"{where}[{i}]")
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6), where
    else:
        assert ours == theirs, where


def positions(run: Run) -> list[int]:
    """Of the chosen among the candidates."""
    manifest = run.manifest()
    return [manifest["candidates"].index(member) for member in manifest["ensemble"]["members"]]


@pytest.mark.parametrize(
    ("kind", "source", "target", "calibrate"),
    [
        ("regression", "diabetes", "progression", "variance"),
        ("classification", "breast_cancer", "diagnosis", "temperature"),
    ],
)
def test_a_run_of_one_task_says_what_the_run_of_that_task_says(
    kind: str, source: str, target: str, calibrate: str, tmp_path: Path
) -> None:
    """Members, decision and every number of the test rows, under all choices."""
    data = {"source": source, **SOURCE}
    plain = train(tmp_path / "plain", task=kind, tasks={}, data=data)
    one = train(tmp_path / "one", tasks={target: {"kind": kind}}, data=data)
    for choice in CHOICES + (OF_CLASSES if kind == "classification" else []):
        own = {**choice, "calibrate": calibrate} if choice.get("calibrate") == "auto" else choice
        for run in (plain, one):
            anew(run, **own)
        ours, theirs = (positions(run) for run in (one, plain))
        assert ours == theirs, own
        expected, found = plain.metrics()["test"], one.metrics()["test"]["tasks"][target]
        for name in ("ensemble", "gain", "coverage", "rivals", "diversity"):
            nearly(found.get(name), expected.get(name), f"{own} {name}")
        if soup := expected.get("soup"):
            told = one.metrics()["test"]["soup"]
            nearly(told["barriers"], soup["barriers"], "barriers")
            nearly(told.get("metrics"), soup.get("metrics"), "soup")


def test_stacking_gives_each_task_its_own_mixture(run: Run) -> None:
    anew(run, combine="stacking")
    ensemble, metrics = run.manifest()["ensemble"], run.metrics()["test"]["tasks"]
    assert set(ensemble["tasks"]) == set(TASKS)
    x = prepare(run.job(), Path.cwd()).dataset
    test = prepare(run.job(), Path.cwd()).split.test
    found = Ensemble.load(run.path).predict(x.x[test])
    split = with_targets(run.job(), run.predictions("test"))
    for name, own in zip(TASKS, targets_of(run.job(), split["target"]), strict=True):
        weights = torch.tensor(ensemble["tasks"][name]["weights"], dtype=torch.float64)
        assert weights.sum() == pytest.approx(1)
        if name == "sex":
            mixed = (weights[:, None, None] * split["sex/log_probs"].double().exp()).sum(0)
            nll = -mixed.gather(1, own[:, None]).log().mean().item()
            assert metrics[name]["ensemble"]["nll"] == pytest.approx(nll, rel=1e-6)
        else:
            mixed = (weights[:, None, None] * split["progression/mean"].double()).sum(0)
        torch.testing.assert_close(
            torch.from_numpy(found.tasks[name].mean).double(), mixed, rtol=1e-4, atol=1e-5
        )
    said = decided(run.manifest(), run.metrics())
    assert sum("Its own mixture of the members" in sentence for sentence in said) == 2


def test_the_graph_of_a_stacked_ensemble_has_each_tasks_weights(run: Run) -> None:
    from ensemble_svc.exporting import export

    anew(run, combine="stacking", calibrate="temperature")
    assert export(run, run.path.parent / "all.pt2").largest < 1e-3


def test_a_soup_of_several_tasks_is_their_mean_weights_and_is_measured_in_each(run: Run) -> None:
    anew(run, soup="uniform")
    soup = run.metrics()["test"]["soup"]
    states = [run.tensors(member, "weights.safetensors") for member in soup["members"]]
    assert len(states) == 4
    for name, value in load(run.verified("soup.safetensors")).items():
        if value.is_floating_point():
            mean = torch.stack([state[name].double() for state in states]).mean(0)
            torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)
    metrics = run.metrics()["test"]["tasks"]
    for name, own in soup["tasks"].items():
        gain = own["gain_over_ensemble"]["nll"]
        lost = metrics[name]["ensemble"]["nll"] - own["metrics"]["nll"]
        assert gain["estimate"] == pytest.approx(lost, abs=1e-6)
    said = [s for s in decided(run.manifest(), run.metrics()) if "The soup alone has" in s]
    assert [sentence.partition(":")[0] for sentence in said] == list(TASKS)
    anew(run, soup="none")
    assert "soup" not in run.metrics()["test"]
    assert damage(run) == []


@pytest.mark.parametrize(("kind", "resample"), [("oob", "bootstrap"), ("oof", {"name": "kfold", "folds": 4})])
def test_rows_that_some_have_not_seen_decide_and_the_whole_run_is_the_same_packed_and_alone(
    kind: str, resample: Any, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "data": BASE["data"] | {"validation": kind},
        "ensemble": {"members": 4, "resample": resample},
        "aggregate": {"select": {"name": "greedy", "picks": 6}, "calibrate": "temperature", "conformal": 0.2},
    }
    packed = train(tmp_path / "packed", **changes)
    alone = train(tmp_path / "alone", **changes, compute=BASE["compute"] | {"pack": "off"})
    first, second = packed.manifest()["ensemble"], alone.manifest()["ensemble"]
    assert first["rows"] == kind
    assert first["members"] == second["members"]
    for name in TASKS:
        ours, theirs = (run.metrics()["test"]["tasks"][name]["ensemble"]["nll"] for run in (packed, alone))
        assert ours == pytest.approx(theirs, rel=1e-3)
    split = packed.predictions("train")
    seen = split["seen"].bool()
    scored = ~seen.all(0)
    entries = packed.manifest()["members"]
    for k, entry in enumerate(entries):
        own = part_of(split, "sex")["log_probs"][k]
        truth = split["sex/target"].long()
        rows = ~seen[k]
        log_probs = own[rows].gather(1, truth[rows, None]).double()
        said = part_of(split, "progression")
        spread = said["log_variance"][k][rows].double()
        error = (split["progression/target"].double()[rows] - said["mean"][k][rows]).square()
        density = -0.5 * (spread + error / spread.exp() + torch.log(torch.tensor(2 * torch.pi)))
        total = -density.mean() - 0.5 * log_probs.mean()
        assert entry["metrics"]["oob"]["nll"] == pytest.approx(total.item(), rel=1e-3)
    assert first["num_rows"] == -(-len(scored) // 2)  # the other half is promised the coverage
    reselect(packed, packed.job(), directory=Path.cwd())
    again = {k: v for k, v in packed.manifest()["ensemble"].items() if k != "version"}
    assert again == {k: v for k, v in first.items() if k != "version"}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A run of a table, and a table of other rows with its columns in another order."""
    frame = load_diabetes(as_frame=True, scaled=False).frame.rename(columns={"target": "progression"})
    frame["sex"] = frame["sex"].map({1.0: "f", 2.0: "m"})
    folder = tmp_path_factory.mktemp("tables")
    frame.iloc[:300].to_csv(folder / "own.csv", index=False)
    frame.iloc[300:][sorted(frame.columns, reverse=True)].to_csv(folder / "new.csv", index=False)
    source = {"name": "csv", "path": str(folder / "own.csv"), "target": list(TASKS)}
    return train(folder / "run", data={"source": source, **SOURCE}), folder / "new.csv"


def test_rows_given_for_it_decide_each_task_by_its_own_target(
    tables: tuple[Run, Path], tmp_path: Path
) -> None:
    """Whatever the order of their columns and of the targets that are named."""
    trained, table = tables
    frame = pandas.read_csv(table)
    job = trained.job()
    truth = {"progression": torch.tensor(frame["progression"].to_numpy())[:, None].float()}
    truth["sex"] = torch.tensor((frame["sex"] == "m").to_numpy()).long()
    found = []
    for number, targets in enumerate((list(TASKS), list(TASKS)[::-1])):
        run = Run(Path(shutil.copytree(trained.path, tmp_path / f"run{number}")))
        source = json.dumps({"name": "csv", "path": str(table), "target": targets})
        other = parse_job(job.model_dump(mode="json") | {"aggregate": {"combine": "stacking"}})
        reselect(run, other, data=source, directory=tmp_path)
        found.append(run.manifest()["ensemble"])
        assert damage(run) == []
    assert found[0] == found[1]
    assert (found[0]["rows"], found[0]["num_rows"]) == ("data", len(frame))
    columns = [name for name in pandas.read_csv(table.parent / "own.csv").columns if name not in TASKS]
    x = frame[columns].to_numpy(numpy.float32)
    ids = trained.manifest()["candidates"]
    members = Ensemble.load(trained.path, members=ids).members(x)
    for name, own in truth.items():
        blend = by_likelihood(log_likelihood(part_of(members, name), own), prior_rows=10.0)
        assert found[0]["tasks"][name]["weights"] == pytest.approx(blend.weights, abs=1e-6)


def test_rows_with_a_class_that_no_member_knows_do_not_decide(
    tables: tuple[Run, Path], tmp_path: Path
) -> None:
    trained, table = tables
    frame = pandas.read_csv(table)
    frame.loc[3, "sex"] = "unknown"
    frame.to_csv(tmp_path / "odd.csv", index=False)
    source = json.dumps({"name": "csv", "path": str(tmp_path / "odd.csv"), "target": list(TASKS)})
    with pytest.raises(DataError, match="unknown"):
        reselect(trained, trained.job(), data=source, directory=tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"aggregate": {"combine": "stacking", "calibrate": "temperature"}},
        {"aggregate": {"soup": "uniform", "select": {"name": "diverse", "k": 3}}},
        {
            "data": BASE["data"] | {"validation": "oob"},
            "ensemble": {"members": 4, "resample": "bootstrap"},
            "aggregate": {"select": {"name": "greedy", "picks": 6}},
        },
    ],
    ids=["stacking", "soup", "oob"],
)
def test_a_run_that_ended_before_it_decided_decides_the_same(changes: dict[str, Any], tmp_path: Path) -> None:
    run = train(tmp_path / "run", **changes)
    before, metrics = run.manifest()["ensemble"], run.metrics()
    journal = run.path / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    decided_at = next(i for i, line in enumerate(lines) if '"event": "ensemble"' in line)
    journal.write_text("".join(lines[:decided_at]))
    for name in ("manifest.json", "metrics.json", "exhibits.json", "report.html"):
        (run.path / name).unlink()
    shutil.rmtree(run.path / "predictions")
    (run.path / "predictions").mkdir()
    (run.path / "predictions" / ".tmp-1-test.safetensors").write_text("of one that was killed")
    again = train(run.path, **changes)
    assert again.manifest()["ensemble"] == before
    assert again.metrics() == metrics
    assert not list((run.path / "predictions").glob(".tmp-*"))
