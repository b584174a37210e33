"""Laws of runs that train together: each ends as it would have alone, whatever happens to the others."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from killed_drivers import command, kill, start, wait_for
from typer.testing import CliRunner
from whole_runs import artefacts, job_of, train

from ensemble_svc import pipeline
from ensemble_svc.cli.main import app
from ensemble_svc.errors import DataError, EnsembleSvcError, OtherJob, RunInUse, StoreError
from ensemble_svc.local import LocalExecutor
from ensemble_svc.pipeline import Listener, Outcome, train_together
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import dump_job
from ensemble_svc.store.lock import sole_driver
from ensemble_svc.store.run import Run
from ensemble_svc.store.status import damage

SWEEPS: dict[str, list[dict[str, Any]]] = {
    "seed": [{"seed": 0}, {"seed": 1}],
    "split": [{"data": {"test": 0.5}}, {"data": {"test": 0.4}}],
    "source": [{"data": {"source": "digits"}}, {"data": {"source": "breast_cancer"}}],
    "packs": [{"compute": {"pack": "off"}, "seed": 1}, {"compute": {"pack": 2}}, {"seed": 2}],
    "epochs": [{"training": {"epochs": 1}}, {"training": {"epochs": 3}}],
    "the same members": [{"evaluate": {"bins": 5}}, {"evaluate": {"bins": 9}}, {"seed": 1}],
}


def jobs_of(sweep: list[dict[str, Any]], folder: Path) -> dict[Path, JobSpec]:
    jobs = {}
    for number, changes in enumerate(sweep):
        compute = {"cpus_per_slot": 1, **changes.get("compute", {})}
        jobs[folder / f"run{number}"] = job_of(**{**changes, "compute": compute})
    return jobs


def together(
    jobs: Mapping[Path, JobSpec], executor: LocalExecutor | None = None, listener: Listener | None = None
) -> tuple[Outcome, ...]:
    return train_together(jobs, directory=Path.cwd(), executor=executor or LocalExecutor(), listener=listener)


@dataclass(frozen=True)
class Watched(LocalExecutor):
    """The local executor as strict as one that knows slots by their packs' names; it keeps what it was given."""

    seen: list[Any] = field(default_factory=list)

    def run(self, slots, fit, payload, *, on_progress, on_failure):
        self.seen.append(payload)
        assert len({slot.pack.id for slot in slots}) == len(slots)
        super().run(slots, fit, payload, on_progress=on_progress, on_failure=on_failure)


@pytest.mark.parametrize("sweep", SWEEPS.values(), ids=SWEEPS.keys())
def test_each_run_is_what_it_would_be_alone(sweep, tmp_path):
    outcomes = together(jobs_of(sweep, tmp_path / "together"), Watched())
    for outcome, (folder, job) in zip(outcomes, jobs_of(sweep, tmp_path / "alone").items(), strict=True):
        assert outcome.shortfall is None
        assert damage(outcome.run) == []
        assert artefacts(outcome.run) == artefacts(train(job, folder))


def test_the_same_call_again_changes_nothing(tmp_path):
    jobs = jobs_of(SWEEPS["seed"], tmp_path)
    first = [artefacts(outcome.run) for outcome in together(jobs)]
    assert [artefacts(outcome.run) for outcome in together(jobs)] == first


def test_runs_of_one_data_set_ship_it_once(tmp_path):
    executor = Watched()
    together(jobs_of([{"seed": s} for s in range(4)], tmp_path), executor)
    (payloads,) = executor.seen
    assert len(payloads) == 4
    assert len({id(payload.dataset) for payload in payloads.values()}) == 1
    one = len(pickle.dumps(next(iter(payloads.values()))))
    assert len(pickle.dumps(payloads)) < 1.5 * one


def test_a_run_is_finished_while_others_train(tmp_path):
    told: list[str] = []
    listener = Listener(
        progress=lambda slot, progress: told.append(slot.pack.id),
        finished=lambda run: told.append(run.path.name),
    )
    together(jobs_of([{"seed": s} for s in range(3)], tmp_path), listener=listener)
    first, second, third = dict.fromkeys(name for name in told if not name.startswith("run"))
    assert told == [*[first] * 2, second, "run0", second, third, "run1", third, "run2"]


class TestRefusals:
    """One run that is refused: none begins."""

    def refused(self, jobs: Mapping[Path, JobSpec], kind: type[EnsembleSvcError], told: str) -> None:
        with pytest.raises(kind, match=told):
            together(jobs)
        assert not [path for path in tmp_files(jobs) if path.name in {"journal.jsonl", "job.yaml"}]

    def test_data_that_cannot_be_used(self, tmp_path):
        rows = "\n".join(["a,y", *(f"{i},{i % 3}" for i in range(40))])
        (tmp_path / "good.csv").write_text(rows)
        (tmp_path / "bad.csv").write_text(rows.replace("\n7,", "\ninf,"))
        source = {"name": "csv", "target": "y"}
        sweep = [
            {"data": {"source": {**source, "path": str(tmp_path / name)}}} for name in ("good.csv", "bad.csv")
        ]
        self.refused(jobs_of(sweep, tmp_path / "runs"), DataError, "^run1: .*inf")
        assert not (tmp_path / "runs").exists()

    def test_a_folder_of_something_else(self, tmp_path):
        (tmp_path / "run2").mkdir()
        (tmp_path / "run2" / "thesis.tex").write_text("mine")
        self.refused(jobs_of([{"seed": s} for s in range(3)], tmp_path), OtherJob, r"thesis\.tex")

    def test_a_run_that_another_process_drives(self, tmp_path):
        with sole_driver(tmp_path / "run1"):
            self.refused(jobs_of(SWEEPS["seed"], tmp_path), RunInUse, "run1 is in use")
        together(jobs_of(SWEEPS["seed"], tmp_path))


def tmp_files(jobs: Mapping[Path, JobSpec]) -> list[Path]:
    return [path for folder in jobs if folder.exists() for path in folder.rglob("*")]


@dataclass(frozen=True)
class Failing(LocalExecutor):
    """The local executor on which some runs' slots fail for good, or are refused."""

    folder: str = ""
    refuses: bool = False

    def run(self, slots, fit, payload, *, on_progress, on_failure):
        def fit_or_fail(payloads, slot, report):
            if Path(payloads[slot.pack.id].run).name == self.folder:
                raise StoreError("the disk is full") if self.refuses else OSError("the device is gone")
            fit(payloads, slot, report)

        super().run(slots, fit_or_fail, payload, on_progress=on_progress, on_failure=on_failure)


def test_a_run_that_fails_hides_no_other(tmp_path):
    """It says so in its outcome and its folder; the same call again trains what it lacks."""
    jobs = jobs_of([{"seed": s} for s in range(3)], tmp_path / "runs")
    outcomes = together(jobs, Failing(retries=1, folder="run1"))
    assert [outcome.shortfall is None for outcome in outcomes] == [True, False, True]
    assert "the device is gone" in str(outcomes[1].shortfall)
    kinds = [event["event"] for event in outcomes[1].run.journal.of_kind("retry", "failed")]
    assert kinds == ["retry", "failed"]
    for number in (0, 2):
        assert "test" in outcomes[number].run.metrics()
        assert not outcomes[number].run.journal.of_kind("retry", "failed")
    again = together(jobs)
    assert [outcome.shortfall for outcome in again] == [None] * 3
    assert artefacts(again[1].run) == artefacts(train(jobs[tmp_path / "runs" / "run1"], tmp_path / "alone"))


def test_a_refusal_while_training_leaves_finished_runs_finished(tmp_path):
    jobs = jobs_of([{"seed": s} for s in range(3)], tmp_path / "runs")
    with pytest.raises(StoreError, match="the disk is full"):
        together(jobs, Failing(retries=1, folder="run1", refuses=True))
    assert "test" in Run(tmp_path / "runs" / "run0").metrics()
    assert not (tmp_path / "runs" / "run2" / "metrics.json").exists()
    for outcome, (folder, job) in zip(together(jobs), jobs.items(), strict=True):
        assert artefacts(outcome.run) == artefacts(train(job, tmp_path / "alone" / folder.name))


def test_cores_are_shared_among_the_runs_and_kept_by_the_job_that_names_them(tmp_path):
    class Wide(LocalExecutor):
        def resources(self):
            return pipeline.Resources(8)

        def run(self, slots, fit, payload, *, on_progress, on_failure):
            given.append([slot.cpus for slot in slots])

    given: list[list[int]] = []
    sweep = [{"seed": s} for s in range(3)]
    for cpus in ("auto", 3):
        jobs = {
            tmp_path / str(cpus) / str(n): job_of(**c, compute={"cpus_per_slot": cpus})
            for n, c in enumerate(sweep)
        }
        together(jobs, Wide())
    assert given == [[2, 2, 2], [3, 3, 3]]


def three() -> JobSpec:
    return job_of(training={"epochs": 6}, compute={"cpus_per_slot": 1})


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """What each of three seeds ends with alone."""
    folder = tmp_path_factory.mktemp("apart")
    jobs = [three().model_copy(update={"seed": seed}) for seed in range(3)]
    return [artefacts(train(job, folder / str(job.seed))) for job in jobs]


@pytest.mark.parametrize(("run", "event", "count"), [(2, "begin", 1), (1, "commit", 2), (1, "sealed", 3)])
def test_killed_anywhere_the_same_command_ends_with_the_same_bits(run, event, count, apart, tmp_path):
    """Law 3 for a command of several runs: SIGKILL before, inside and between them."""
    (tmp_path / "job.yaml").write_text(dump_job(three()))
    words = ["train", str(tmp_path / "job.yaml"), "--each", "seed=0:3", "--out", str(tmp_path / "runs")]
    driver = start(command, *words)
    wait_for(tmp_path / "runs" / f"seed={run}", event, count)
    kill(driver)
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["short"] == {}
    assert [artefacts(Run(tmp_path / "runs" / f"seed={seed}")) for seed in range(3)] == apart
