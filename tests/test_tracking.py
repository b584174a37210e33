"""Finished runs in a real MLflow store: everything once, however often the command is given."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from search_runs import SPACE
from search_runs import job_of as search_of
from search_runs import train as search
from typer.testing import CliRunner
from whole_runs import job_of, train

from ensemble_svc import pipeline
from ensemble_svc.cli.main import app
from ensemble_svc.errors import SpecError
from ensemble_svc.local import LocalExecutor
from ensemble_svc.spec.load import dump_job
from ensemble_svc.store.run import Run
from ensemble_svc.tracking.book import book_of, parameters
from ensemble_svc.tracking.check import check_tracker
from ensemble_svc.tracking.to_mlflow import CHOSEN, DIGEST, MARK, PARENT, SEAL

MLFLOW = pytest.mark.skipif(
    find_spec("mlflow") is None, reason="MLflow, an optional package, is not installed"
)
WANDB = pytest.mark.skipif(find_spec("wandb") is None, reason="wandb, an optional package, is not installed")
HERE = {"name": "mlflow"}


def client(run: Run) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{run.path.parent / 'mlflow.db'}")


def told(run: Run, experiment: str) -> tuple[Any, dict[str, Any]]:
    """The ensemble's run and the members' by id, as the store has them; there are no others."""
    store = client(run)
    found = store.search_runs([store.get_experiment_by_name(experiment).experiment_id], max_results=1000)
    (parent,) = [one for one in found if MARK in one.data.tags]
    members = {one.info.run_name: one for one in found if one.data.tags.get(PARENT) == parent.info.run_id}
    assert len(found) == 1 + len(members)
    return parent, members


def check(run: Run, experiment: str) -> None:
    """The store says what the run folder says: each member's epochs once, its values, its final metrics."""
    store, (parent, members) = client(run), told(run, experiment)
    manifest = run.manifest()
    assert members.keys() == {entry["id"] for entry in manifest["members"]}
    for entry in manifest["members"]:
        one, history = members[entry["id"]], run.history(entry["id"])
        assert one.info.status == "FINISHED"
        assert one.data.tags[DIGEST] == entry["digest"]
        assert one.data.tags[CHOSEN] == str(entry["id"] in manifest["ensemble"]["members"])
        assert one.data.params == {
            "index": str(entry["index"]), **{k: str(v) for k, v in entry["hyperparameters"].items()}
        }  # fmt: skip
        for column in ("train_loss", "val_nll"):
            points = store.get_metric_history(one.info.run_id, column)
            assert [point.step for point in points] == history["epoch"].to_list()
            assert [point.value for point in points] == history[column].to_list()
        for name, value in entry["metrics"]["validation"].items():
            assert one.data.metrics[f"final/validation/{name}"] == value
    ensemble = run.metrics()["validation"]["ensemble"]
    assert parent.data.metrics["validation/nll"] == ensemble["nll"]
    assert parent.data.params["model.name"] == "mlp"
    assert parent.info.status == "FINISHED"


@MLFLOW
def test_a_search_is_a_run_with_a_run_for_each_member(tmp_path: Path) -> None:
    job = search_of({"trials": 4}, compute={"track": HERE})
    check(run := search(job, tmp_path / "run"), "search")
    before = told(run, "search")
    check(search(job, tmp_path / "run"), "search")
    after = told(run, "search")
    assert after[0].info.run_id == before[0].info.run_id
    assert {k: v.info.run_id for k, v in after[1].items()} == {k: v.info.run_id for k, v in before[1].items()}
    assert len(client(run).get_metric_history(after[0].info.run_id, "validation/nll")) == 1


@MLFLOW
def test_a_run_that_grows_is_the_same_run_with_more_members(tmp_path: Path) -> None:
    track = {"track": {**HERE, "experiment": "grown"}}
    run = train(job_of(ensemble={"members": 2}, compute=track), tmp_path / "run")
    before = told(run, "grown")
    check(train(job_of(ensemble={"members": 3}, compute=track), tmp_path / "run"), "grown")
    after = told(run, "grown")
    assert after[0].info.run_id == before[0].info.run_id
    assert all(after[1][name].info.run_id == one.info.run_id for name, one in before[1].items())
    steps = [p.step for p in client(run).get_metric_history(after[0].info.run_id, "validation/nll")]
    assert steps == [1, 2]


@MLFLOW
def test_what_was_half_written_is_written_anew(tmp_path: Path) -> None:
    job = job_of(compute={"track": HERE})
    run = train(job, tmp_path / "run")
    store, (_, members) = client(run), told(run, "whole")
    torn = members[run.manifest()["members"][1]["id"]]
    store.delete_tag(torn.info.run_id, SEAL)
    check(train(job, tmp_path / "run"), "whole")
    assert told(run, "whole")[1][torn.info.run_name].info.run_id != torn.info.run_id


@MLFLOW
def test_a_run_that_was_made_and_not_described_gets_its_parameters(tmp_path: Path) -> None:
    """Killed before any of them was written."""
    run = train(job_of(), tmp_path / "run")
    store, book = client(run), book_of(run)
    store.create_run(store.create_experiment("whole"), tags={MARK: book.mark})
    check(train(job_of(compute={"track": HERE}), tmp_path / "run"), "whole")


@MLFLOW
def test_two_runs_of_one_job_are_two_runs(tmp_path: Path) -> None:
    for name in ("one", "two"):
        train(job_of(compute={"track": HERE}), tmp_path / name)
    store = client(run := Run(tmp_path / "one"))
    found = store.search_runs([store.get_experiment_by_name("whole").experiment_id])
    assert len({one.data.tags[MARK] for one in found if MARK in one.data.tags}) == 2
    assert book_of(run).mark != book_of(Run(tmp_path / "two")).mark


@MLFLOW
def test_a_store_that_cannot_be_reached_costs_the_run_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    uri = f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}"
    heard: list[str] = []
    run = pipeline.train(
        job_of(compute={"track": {**HERE, "uri": uri}}),
        out=tmp_path / "run",
        directory=Path.cwd(),
        executor=LocalExecutor(),
        listener=pipeline.Listener(noted=heard.append),
    )
    assert "mlflow was not brought up to date" in heard[0]
    assert run.journal.of_kind("finished")
    assert run.journal.of_kind("untracked")[0]["reason"] == heard[0]
    check(train(job_of(compute={"track": HERE}), tmp_path / "run"), "whole")


@WANDB
def test_wandb_has_a_run_for_each_member_once(tmp_path: Path) -> None:
    job = job_of(compute={"track": "wandb"})
    for _ in range(2):
        run = train(job, tmp_path / "run")
        assert len(list((run.path / "wandb").glob("offline-run-*"))) == 4


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_package_that_is_not_installed_is_one_message(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("ensemble_svc.tracking.check.find_spec", lambda name: None)
    job = job_of(compute={"track": package})
    with pytest.raises(SpecError, match=rf"compute.track: {package} is not installed; `pip install"):
        train(job, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "job.yaml").write_text(dump_job(job))
    done = CliRunner().invoke(app, ["validate", str(tmp_path / "job.yaml")])
    assert isinstance(done.exception, SpecError)
    check_tracker(job_of())


def test_a_job_is_told_of_by_its_own_keys() -> None:
    told = parameters(search_of({"trials": 2}))
    assert told["search.trials"] == "2"
    assert told["training.epochs"] == "2"
    assert not [key for key in told if key.startswith("compute")]
    assert all(any(key in name for name in told) for key in SPACE)
