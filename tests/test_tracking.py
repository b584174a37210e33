"""Runs in a real MLflow store and in W&B: told while they train, each once, however often the command is given."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from search_runs import SPACE, Killed
from search_runs import job_of as search_of
from search_runs import train as search
from typer.testing import CliRunner
from whole_runs import job_of, train

from ensemble_svc import pipeline
from ensemble_svc.cli.main import app
from ensemble_svc.errors import SpecError
from ensemble_svc.listening import Listener
from ensemble_svc.local import LocalExecutor
from ensemble_svc.spec.load import dump_job
from ensemble_svc.store.run import Run
from ensemble_svc.tracking import clerk, reporter
from ensemble_svc.tracking.book import book_of
from ensemble_svc.tracking.check import check_tracker
from ensemble_svc.tracking.naming import parameters
from ensemble_svc.tracking.to_mlflow import CHOSEN, DIGEST, MARK, PARENT, STATUS

MLFLOW = pytest.mark.skipif(
    find_spec("mlflow") is None, reason="MLflow, an optional package, is not installed"
)
WANDB = pytest.mark.skipif(find_spec("wandb") is None, reason="wandb, an optional package, is not installed")
HERE = {"name": "mlflow"}


def client(run: Run) -> Any:
    from mlflow.tracking import MlflowClient

    with FileLock(run.path.parent / ".mlflow.lock", timeout=240):
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
            points = sorted(store.get_metric_history(one.info.run_id, column), key=lambda point: point.step)
            assert [point.step for point in points] == history["epoch"].to_list()
            assert [point.value for point in points] == pytest.approx(history[column].to_list(), rel=1e-5)
        for name, value in entry["metrics"]["validation"].items():
            assert one.data.metrics[f"final/validation/{name}"] == value
    ensemble = run.metrics()["validation"]["ensemble"]
    assert parent.data.metrics["validation/nll"] == ensemble["nll"]
    assert parent.data.params["model.name"] == "mlp"
    assert (parent.info.status, parent.data.tags[STATUS]) == ("FINISHED", "finished")
    (report,) = store.list_artifacts(parent.info.run_id)
    assert report.path == "report.html"
    assert report.file_size == (run.path / "report.html").stat().st_size


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
def test_what_was_half_written_is_gone_on_with_and_what_is_not_true_of_it_is_written_anew(
    tmp_path: Path,
) -> None:
    run = train(job_of(), tmp_path / "run")
    store, book = client(run), book_of(run)
    parent = store.create_run(
        store.create_experiment("whole", (tmp_path / "files").as_uri()), tags={MARK: book.mark}
    ).info.run_id
    ids = dict[str, str]()
    for page, factor in zip(book.pages[:2], (1, 2), strict=True):
        tags = {PARENT: parent, DIGEST: page.digest, "mlflow.runName": page.id}
        ids[page.id] = store.create_run(store.get_run(parent).info.experiment_id, tags=tags).info.run_id
        first = next(point for point in page.points if point.name == "train_loss")
        store.log_metric(ids[page.id], "train_loss", factor * first.value, step=first.step)
    check(train(job_of(compute={"track": HERE}), tmp_path / "run"), "whole")
    after = told(run, "whole")[1]
    true, false = (book.pages[0].id, book.pages[1].id)
    assert after[true].info.run_id == ids[true]
    assert after[false].info.run_id != ids[false]


@MLFLOW
def test_a_run_that_was_made_and_not_described_gets_its_parameters(tmp_path: Path) -> None:
    """Killed before any of them was written."""
    run = train(job_of(), tmp_path / "run")
    store, book = client(run), book_of(run)
    store.create_run(store.create_experiment("whole", (tmp_path / "files").as_uri()), tags={MARK: book.mark})
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
def test_runs_that_train_together_are_told_of_apart(tmp_path: Path) -> None:
    track = {"track": {**HERE, "experiment": "both"}}
    jobs = {tmp_path / name: job_of(seed=seed, compute=track) for seed, name in enumerate(("one", "two"))}
    outcomes = pipeline.train_together(jobs, directory=Path.cwd(), executor=LocalExecutor())
    found = of_experiment(outcomes[0].run, "both")
    parents = {one.info.run_name: one for one in found if MARK in one.data.tags}
    assert parents.keys() == {"one", "two"}
    for outcome in outcomes:
        parent = parents[outcome.run.path.name]
        own = [one for one in found if one.data.tags.get(PARENT) == parent.info.run_id]
        assert {one.info.run_name for one in own} == {m["id"] for m in outcome.run.manifest()["members"]}
        assert parent.data.metrics["test/nll"] == outcome.run.metrics()["test"]["ensemble"]["nll"]


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
    assert len(heard) == 1
    assert heard[0].startswith("mlflow ")
    assert run.journal.of_kind("finished")
    assert "mlflow was not brought up to date" in run.journal.of_kind("untracked")[0]["reason"]
    check(train(job_of(compute={"track": HERE}), tmp_path / "run"), "whole")


def wait_for(there: Callable[[], bool], what: str, within_s: float = 240.0) -> None:
    """Look until it is so; a machine with much to do is given its time."""
    until = time.monotonic() + within_s
    while not there():
        assert time.monotonic() < until, what
        time.sleep(0.2)


def of_experiment(run: Run, experiment: str) -> list[Any]:
    """The store's runs; none before there is an experiment."""
    if not (run.path.parent / "mlflow.db").exists():
        return []
    found = (store := client(run)).get_experiment_by_name(experiment)
    return list(store.search_runs([found.experiment_id])) if found else []


def at_epoch(number: int, do: Callable[[], None]) -> Listener:
    """Does something at the end of an epoch, while the members wait for it."""

    def progress(_: Any, told: Any) -> None:
        if told.epoch == number:
            do()

    return Listener(progress=progress)


@MLFLOW
def test_epochs_are_told_while_the_members_train_and_a_killed_run_goes_on_as_the_same_runs(
    tmp_path: Path,
) -> None:
    job, run = job_of(training={"epochs": 3}, compute={"track": HERE}), Run(tmp_path / "run")
    seen: list[Any] = []

    def look() -> None:
        def told_of_two() -> bool:
            seen[:] = of_experiment(run, "whole")
            return sum("train_loss" in one.data.metrics for one in seen) == 3

        wait_for(told_of_two, "the members' epochs are in the store while they train")
        raise Killed

    with pytest.raises(Killed):
        pipeline.train(
            job, out=run.path, directory=Path.cwd(), executor=LocalExecutor(), listener=at_epoch(2, look)
        )
    (parent,) = [one for one in seen if MARK in one.data.tags]
    assert (parent.info.status, parent.data.tags[STATUS]) == ("RUNNING", "running")
    assert parent.data.params["training.epochs"] == "3"
    members = [one for one in seen if PARENT in one.data.tags]
    assert {one.info.status for one in members} == {"RUNNING"}
    assert {one.data.params["index"] for one in members} == {"0", "1", "2"}
    assert not run.journal.of_kind("finished")
    stopped = {one.info.run_id: one.info.status for one in of_experiment(run, "whole")}
    assert set(stopped.values()) == {"KILLED"}
    check(train(job, run.path), "whole")
    assert {one.info.run_id for one in of_experiment(run, "whole")} == stopped.keys()


DRIVER = """
import os, signal, sys
from pathlib import Path
from ensemble_svc import pipeline
from ensemble_svc.local import LocalExecutor
from ensemble_svc.listening import Listener
from test_tracking import HERE, job_of, of_experiment, wait_for
from ensemble_svc.store.run import Run

run = Run(Path(sys.argv[1]))

def progress(slot, told):
    if told.epoch == 1:
        wait_for(lambda: len(of_experiment(run, "whole")) == 4, "runs", within_s=480.0)
        os.kill(os.getpid(), signal.SIGKILL)

job = job_of(compute={"track": HERE})
pipeline.train(job, out=run.path, directory=Path.cwd(), executor=LocalExecutor(), listener=Listener(progress=progress))
"""


@MLFLOW
def test_a_driver_that_is_killed_leaves_runs_that_say_so_and_that_are_gone_on_with(tmp_path: Path) -> None:
    """By SIGKILL, of the driver alone: what tells the tracker outlives it for the moment that it takes to say so."""
    run = Run(tmp_path / "run")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    done = subprocess.run([sys.executable, "-c", DRIVER, str(run.path)], env=env, check=False, timeout=900)
    assert done.returncode == -signal.SIGKILL
    wait_for(
        lambda: {one.info.status for one in of_experiment(run, "whole")} == {"KILLED"},
        "they say that they were killed",
    )
    with FileLock(run.path / ".tracker.lock", timeout=60):
        before = {one.info.run_id for one in of_experiment(run, "whole")}
    check(train(job_of(compute={"track": HERE}), run.path), "whole")
    assert {one.info.run_id for one in of_experiment(run, "whole")} == before


@MLFLOW
def test_a_server_that_never_answers_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "END_S", 2.0)
    monkeypatch.setattr(reporter, "END_S_PER_MEMBER", 0.0)
    monkeypatch.setattr(reporter, "CLOSE_S", 1.0)
    heard: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        uri = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        listener = Listener(noted=heard.append)
        run, began = tmp_path / "run", time.monotonic()
        job = job_of(compute={"track": {**HERE, "uri": uri}})
        pipeline.train(job, out=run, directory=Path.cwd(), executor=LocalExecutor(), listener=listener)
        spent = time.monotonic() - began
    found = Run(run)
    (ended,) = found.journal.of_kind("finished")
    assert time.time() - ended["time"] < 2.0 + 1.0 + 20.0
    assert spent > 2.0
    assert heard == [
        "mlflow was not brought up to date (it took more than 2 s); the same command tries again"
    ]
    assert found.journal.of_kind("untracked")[0]["reason"] == heard[0]


def test_what_a_package_prints_is_no_answer_to_the_driver() -> None:
    """MLflow prints an address for each run that ends on a server; the driver reads answers, a line each."""
    code = (
        "from ensemble_svc.tracking.clerk import Say; say = Say(); print('View run', flush=True); "
        "say(3, done='')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"run": 3, "done": ""}]


def test_who_still_tells_of_a_run_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process of a start that was killed may be held up by a server; this start's other runs are told of."""
    monkeypatch.setattr(clerk, "LEAVE_S", 0.1)
    run, said = train(job_of(), tmp_path / "run"), list[str]()
    desk = clerk.Desk(0, run.path, lambda number, done: said.append(done))
    with FileLock(run.path / clerk.LOCK):
        desk.end()
    desk.end()
    assert "still tells it" in said[0]
    assert said[1:] == [""]


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The rows that a W&B file holds: a header of 7 bytes, then blocks of framed records."""
    from wandb.proto.wandb_internal_pb2 import Record

    body = next(folder.glob("*.wandb")).read_bytes()
    at, whole, rows = 7, b"", []
    while at + 7 <= len(body):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(body[at + 4 : at + 6], "little"), body[at + 6]
        whole = (b"" if kind in (1, 2) else whole) + body[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            record = Record.FromString(whole)
            if record.HasField("history"):
                rows.append({i.key or "/".join(i.nested_key): i.value_json for i in record.history.item})
    return rows


@WANDB
def test_wandb_grows_while_it_trains_and_has_a_run_for_each_member_once(tmp_path: Path) -> None:
    job, run = job_of(compute={"track": "wandb"}), Run(tmp_path / "run")

    def folders() -> list[Path]:
        return sorted((run.path / "wandb").glob("offline-run-*"))

    def look() -> None:
        wait_for(
            lambda: (
                len(folders()) == 3 and all(any("train_loss" in row for row in rows_of(f)) for f in folders())
            ),
            "each member's file has its first epoch while it trains",
        )

    executor = LocalExecutor()
    pipeline.train(job, out=run.path, directory=Path.cwd(), executor=executor, listener=at_epoch(1, look))
    whole = folders()
    assert len(whole) == 4
    for member in run.manifest()["members"]:
        (own,) = [folder for folder in whole if folder.name.endswith(member["id"])]
        losses = [float(row["train_loss"]) for row in rows_of(own) if "train_loss" in row]
        assert losses == pytest.approx(run.history(member["id"])["train_loss"].to_list())
    train(job, run.path)
    assert folders() == whole


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


def test_what_tells_a_tracker_loads_no_torch_while_others_train() -> None:
    code = "import sys, ensemble_svc.tracking.clerk; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
