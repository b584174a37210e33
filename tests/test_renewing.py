"""A run that is older than what its report shows: ``report`` makes it from the predictions, or says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ensemble_svc import pipeline
from ensemble_svc.cli.main import app
from ensemble_svc.local import LocalExecutor
from ensemble_svc.renewing import renew
from ensemble_svc.reselecting import reselect
from ensemble_svc.spec.load import parse_job
from ensemble_svc.store.document import read_document
from ensemble_svc.store.lock import sole_driver
from ensemble_svc.store.manifest import amend_manifest
from ensemble_svc.store.run import EXHIBITS, Run
from ensemble_svc.store.status import damage

BASE: dict[str, Any] = {
    "name": "older",
    "data": {"source": "breast_cancer", "preprocess": ["standardize"], "validation": 0.3, "test": 0.3},
    "model": {"name": "mlp", "hidden": [8]},
    "training": {"epochs": 2, "batch_size": 64},
    "ensemble": {"members": 3, "resample": "bootstrap"},
    "evaluate": {"resamples": 100},
    "compute": {"executor": "local", "measure": "off"},
}
TASKS: dict[str, Any] = {
    "task": "multitask",
    "tasks": {"progression": {"kind": "regression"}, "sex": {"kind": "classification"}},
    "data": BASE["data"] | {"source": "diabetes"},
}
OOB: dict[str, Any] = {"data": BASE["data"] | {"validation": "oob"}, "aggregate": {"select": "greedy"}}


def train(out: Path, **changes: Any) -> Run:
    job = parse_job({**BASE, **changes})
    return pipeline.train(job, out=out, directory=Path.cwd(), executor=LocalExecutor(retries=0))


@pytest.fixture(scope="module", params=[{}, TASKS, OOB], ids=["classes", "tasks", "oob"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("older") / "run", **request.param).path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    """A copy that a test may change."""
    return Run(Path(shutil.copytree(trained, tmp_path / "run")))


def age(run: Run) -> None:
    """Make it a run that was made before the exhibits were."""
    amend_manifest(run.path, {}, dropped=[EXHIBITS])
    (run.path / "report.html").write_text("as it was written then")


def shown(run: Run) -> dict[str, Any]:
    return json.loads(json.dumps(read_document(run.path / EXHIBITS)))


def test_the_report_of_an_older_run_is_that_of_a_new_one(run: Run) -> None:
    page, before, metrics = (run.path / "report.html").read_bytes(), shown(run), run.metrics()
    age(run)
    assert renew(run) == ""
    assert shown(run) == before
    assert (run.path / "report.html").read_bytes() == page
    assert run.metrics() == metrics
    assert run.manifest()["ensemble"]["version"] == 1
    assert damage(run) == []


def test_exhibits_that_are_damaged_are_made_anew(run: Run) -> None:
    before = shown(run)
    (run.path / EXHIBITS).write_text("{}")
    found = CliRunner().invoke(app, ["report", str(run.path)])
    assert found.exit_code == 0, found.output
    assert shown(run) == before
    assert damage(run) == []


def test_they_are_those_of_the_ensemble_as_it_is_decided_now(run: Run) -> None:
    job = run.job().model_dump(mode="json") | {"aggregate": {}}
    reselect(run, parse_job(job), directory=Path.cwd())
    before = shown(run)
    age(run)
    renew(run)
    assert shown(run) == before


def test_without_predictions_one_sentence_says_what_to_do(run: Run) -> None:
    age(run)
    for file in (run.path / "predictions").iterdir():
        file.unlink()
    found = CliRunner().invoke(app, ["report", str(run.path)])
    assert found.exit_code == 0, found.output
    words = " ".join(found.output.split())
    assert "The report shows the numbers alone, without curves, matrices and rows: " in words
    assert "run the same training command again" in words
    assert "Traceback" not in words
    assert EXHIBITS not in run.manifest()["files"]
    assert "</html>" in (run.path / "report.html").read_text()


def test_a_run_whose_source_is_gone_shows_all_but_the_inputs(tmp_path: Path) -> None:
    from sklearn.datasets import load_breast_cancer

    table = tmp_path / "rows.csv"
    load_breast_cancer(as_frame=True).frame.to_csv(table, index=False)
    source = {"name": "csv", "path": str(table), "target": "target"}
    run = train(tmp_path / "run", data=BASE["data"] | {"source": source})
    before = shown(run)
    age(run)
    table.unlink()
    assert renew(run).startswith("The report shows no inputs of the rows: the run's data cannot be read")
    assert shown(run)["tasks"] == before["tasks"]
    assert "inputs" not in shown(run)


def test_a_run_that_is_held_by_another_gets_its_page_all_the_same(run: Run) -> None:
    (run.path / "report.html").unlink()
    with sole_driver(run.path):
        assert renew(run) == ""
    assert damage(run) == []
