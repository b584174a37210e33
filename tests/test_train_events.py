"""TensorBoard's own reader finds a run per member, with its hyper-parameters and every epoch once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from search_runs import RATE, SPACE, Killed, killed_at
from search_runs import job_of as search_of
from search_runs import train as search
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from whole_runs import job_of, train

from ensemble_svc.spec.job import EVENTS_UP_TO, ComputeSpec
from ensemble_svc.store.lineage import settings_of
from ensemble_svc.store.run import Run
from ensemble_svc.train.events import EventFiles
from ensemble_svc.train.ledger import Entry


def events_of(run: Run, member: str) -> EventAccumulator:
    (file,) = (run.path / "tensorboard" / member).iterdir()
    found = EventAccumulator(str(file), purge_orphaned_data=False)
    return found.Reload()


def plugin(events: EventAccumulator, name: str) -> Any:
    data = plugin_data_pb2.HParamsPluginData.FromString(
        events.SummaryMetadata(f"_hparams_/{name}").plugin_data.content
    )
    return getattr(data, name)


def hyperparameters(events: EventAccumulator) -> dict[str, Any]:
    found = plugin(events, "session_start_info").hparams
    return {key: getattr(value, str(value.WhichOneof("kind"))) for key, value in found.items()}


def check(run: Run) -> None:
    """Each member's file has its history, its values and its final metrics, and no epoch twice."""
    members = run.manifest()["members"]
    assert {path.name for path in (run.path / "tensorboard").iterdir()} == {m["id"] for m in members}
    for member in members:
        events = events_of(run, member["id"])
        history = pd.read_parquet(run.path / "members" / member["id"] / "history.parquet")
        for tag, column in (
            ("train/loss", "train_loss"), ("val/nll", "val_nll"), ("learning_rate", "learning_rate")
        ):  # fmt: skip
            assert [e.step for e in events.Scalars(tag)] == history["epoch"].to_list()
            assert [e.value for e in events.Scalars(tag)] == pytest.approx(
                history[column].to_list(), rel=1e-6
            )
        times = [e.wall_time for e in events.Scalars("train/loss")]
        assert times == sorted(times)
        told = hyperparameters(events)
        assert told.pop("index") == member["index"]
        own = settings_of(member)
        assert {key: told[key] for key in own} == pytest.approx(own)
        for split, metrics in member["metrics"].items():
            for name, value in metrics.items():
                (last,) = events.Scalars(f"final/{split}/{name}")
                assert last.value == pytest.approx(value, rel=1e-6)
        assert plugin(events, "session_end_info").status > 0


def test_a_member_has_its_curves_and_its_final_metrics(tmp_path: Path) -> None:
    check(train(job_of(training={"epochs": 4}), tmp_path / "run"))


@pytest.mark.parametrize("number", [2, 5])
def test_a_run_that_went_on_has_every_epoch_once(tmp_path: Path, number: int) -> None:
    """Commits after every epoch make the files grow; what was killed is written anew from its commit."""
    job = search_of({"trials": 3}, training={"epochs": 6}, compute={"commit_every_s": 0.0})
    with pytest.raises(Killed):
        search(job, tmp_path / "run", killed_at(number))
    before = events_of(Run(tmp_path / "run"), next((tmp_path / "run" / "tensorboard").iterdir()).name)
    assert [e.step for e in before.Scalars("train/loss")] == list(range(1, number))
    check(search(job, tmp_path / "run"))


def test_a_trial_has_its_values_and_its_number(tmp_path: Path) -> None:
    run = search(search_of({"trials": 2, "seeds_per_trial": 2}), tmp_path / "run")
    for member in run.manifest()["members"]:
        told = hyperparameters(events_of(run, member["id"]))
        assert set(told) == {"index", "trial", *SPACE}
        assert told["trial"] == member["index"] // 2
        assert told[RATE] == pytest.approx(member["hyperparameters"][RATE])
    check(run)


def test_a_population_is_told_by_the_values_it_ended_with(tmp_path: Path) -> None:
    pbt = {"trials": 6, "scheduler": {"name": "pbt", "interval": 1}}
    run = search(search_of(pbt, training={"epochs": 4}, compute={"commit_every_s": 0.0}), tmp_path / "run")
    turned = [m for m in run.manifest()["members"] if m.get("lineage")]
    assert turned
    for member in turned:
        told, last = hyperparameters(events_of(run, member["id"])), member["lineage"][-1]["values"]
        assert {key: told[key] for key in last} == pytest.approx(last)
    check(run)


def test_none_are_written_where_none_are_asked_for(tmp_path: Path) -> None:
    assert not (train(job_of(compute={"tensorboard": "off"}), tmp_path / "run").path / "tensorboard").exists()
    assert [ComputeSpec().writes_events(n) for n in (EVENTS_UP_TO, EVENTS_UP_TO + 1)] == [True, False]
    assert ComputeSpec(tensorboard="on").writes_events(10**6)


def test_a_folder_that_cannot_be_written_loses_no_member(tmp_path: Path) -> None:
    """The run goes on with one member more, whose event file has no place."""
    run = train(job_of(ensemble={"members": 1}), tmp_path / "run")
    shutil.rmtree(run.path / "tensorboard")
    (run.path / "tensorboard").write_text("a file stands here")
    run = train(job_of(ensemble={"members": 2}), tmp_path / "run")
    assert [m["status"] for m in run.manifest()["members"]] == ["done"] * 2


def test_a_large_pack_is_written_at_its_end_alone(tmp_path: Path) -> None:
    entries = [Entry() for _ in range(65)]
    EventFiles(tmp_path, (), seeds=None).grow(entries)
    assert not list(tmp_path.iterdir())
