"""What the verbs that go on from a finished run print: nothing is cut, and what was decided by whom is said."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from search_runs import job_of, train
from typer.testing import CliRunner

from ensemble_svc import pipeline
from ensemble_svc.cli.main import app
from ensemble_svc.errors import OtherJob
from ensemble_svc.local import LocalExecutor
from ensemble_svc.spec.load import parse_job
from ensemble_svc.store.run import Run

BASE: dict[str, Any] = {
    "name": "again",
    "task": "multitask",
    "tasks": {"progression": {"kind": "regression"}, "sex": {"kind": "classification"}},
    "data": {"source": "diabetes", "preprocess": ["standardize"], "validation": 0.3, "test": 0.3},
    "model": {"name": "mlp", "hidden": [16]},
    "training": {"epochs": 3, "batch_size": 64, "optimizer": {"name": "adamw", "lr": 0.003}},
    "ensemble": {"members": 3, "share_init": True},
    "evaluate": {"resamples": 100},
    "compute": {"executor": "local", "measure": "off"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("again") / "run"
    job = parse_job(BASE)
    return pipeline.train(job, out=out, directory=Path.cwd(), executor=LocalExecutor(retries=0)).path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def said(*arguments: object) -> str:
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert found.exit_code == 0, found.output
    return found.output


def test_no_number_of_a_table_is_cut(run: Path) -> None:
    """Members that hardly differ have numbers of many digits."""
    for output in (said("report", run), said("compare", run, run), said("evaluate", run)):
        assert "…" not in output


def test_tasks_of_the_same_answer_do_not_repeat_it(run: Path) -> None:
    words = " ".join(said("reselect", run, "--select", "{name: top_k, k: 1}").split())
    assert "One member is no ensemble: progression: on 133 test rows" in words
    assert words.count("ne member is no ensemble") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--combine", "vote"), "combined by votes; for progression they are a mixture."),
        (("--combine", "stacking"), "sex: Its own mixture of the members, with weights from"),
        (("--calibrate", "isotonic"), "sex: Calibrated by isotonic regression of each class, fitted on 133"),
        (("--select", "{name: diverse, k: 2}"), "2 of 3 members, chosen on 133 validation rows"),
    ],
)
def test_what_was_decided_is_said_task_by_task(options: tuple[str, str], words: str, run: Path) -> None:
    assert words in " ".join(said("reselect", run, *options).split())


def test_growing_says_that_what_was_reselected_is_an_earlier_version(run: Path) -> None:
    note = "reselect again for its choices"
    said("reselect", run, "--select", "greedy")
    assert Run(run).manifest()["ensemble"]["picks"]
    assert note in " ".join(said("grow", run, "--members", 4).split())
    assert len(Run(run).manifest()["ensemble"]["members"]) == 4
    assert note not in " ".join(said("grow", run, "--members", 5).split())


def test_a_rule_for_the_other_kind_of_task_names_its_own() -> None:
    from ensemble_svc.errors import SpecError

    job = BASE | {"task": "regression", "tasks": {}}
    for aggregate, instead in (({"combine": "vote"}, "use mean"), ({"calibrate": "vector"}, "use variance")):
        with pytest.raises(SpecError, match=re.escape(f"is for classification, not regression; {instead}")):
            parse_job(job | {"aggregate": aggregate})


def test_reselecting_among_all_trials_chooses_as_training_with_them_does(tmp_path: Path) -> None:
    """Halving leaves one trial whole; those that it stopped are candidates once the job says so, and none trains."""
    halved = {"trials": 6, "scheduler": {"name": "halving", "factor": 3}}
    run = train(job_of(halved, training={"epochs": 6}), tmp_path / "run").path
    (alone,) = Run(run).manifest()["candidates"]
    twin = Path(shutil.copytree(run, tmp_path / "twin"))
    said("reselect", run, "--set", "search.candidates=all")
    said("train", twin / "job.yaml", "--out", twin, "--set", "search.candidates=all")
    chosen = Run(run).manifest()
    assert len(chosen["candidates"]) == 6
    for key in ("candidates", "members"):
        assert chosen[key] == Run(twin).manifest()[key]
    assert chosen["ensemble"] == Run(twin).manifest()["ensemble"]
    assert Run(run).metrics() == Run(twin).metrics()
    said("evaluate", run)
    said("reselect", run, "--set", "search.candidates=finished")
    assert Run(run).manifest()["candidates"] == Run(run).manifest()["ensemble"]["members"] == [alone]


@pytest.mark.parametrize("change", ["ensemble.members=2", "ensemble.quorum=0.5", "training.epochs=9"])
def test_reselecting_passes_over_no_key_in_silence(change: str, run: Path) -> None:
    found = CliRunner().invoke(app, ["reselect", str(run), "--set", change])
    assert isinstance(found.exception, OtherJob), found.output
    assert change.split("=")[0] in str(found.exception)
