"""The whole way on Ray: the same members as in this process, also when workers are killed."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from kept_ray import KeptRay
from whole_runs import artefacts, job_of, train

from ensemble_svc import pipeline
from ensemble_svc.cluster.executor import RayExecutor
from ensemble_svc.cluster.session import Session
from ensemble_svc.errors import RunInUse
from ensemble_svc.plan.plan import Slot
from ensemble_svc.plan.progress import Progress
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.run import Run

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def session(kept_ray: KeptRay) -> Session:
    return kept_ray(num_cpus=2)


def train_on_ray(job: JobSpec, out: Path, listener: pipeline.Listener | None = None) -> Run:
    executor = RayExecutor(out / "tune", job.compute.retries)
    return pipeline.train(job, out=out, directory=Path.cwd(), executor=executor, listener=listener)


@pytest.mark.parametrize("pack", ["auto", "off"])
def test_ray_trains_the_members_that_this_process_trains(pack, session, tmp_path):
    """Law 2, bit for bit, with the packs of the same machine."""
    job = job_of(compute={"pack": pack, "cpus_per_slot": 1})
    assert artefacts(train_on_ray(job, tmp_path / "ray")) == artefacts(train(job, tmp_path / "local"))


def test_runs_that_train_together_on_ray_are_those_of_this_process(session, tmp_path):
    """Law 2 for several runs, two of which differ in no member."""
    changes = ({"seed": 0}, {"seed": 1}, {"evaluate": {"bins": 5}})
    jobs = [job_of(**change, compute={"pack": 2, "cpus_per_slot": 1}) for change in changes]
    finished: list[Path] = []
    outcomes = pipeline.train_together(
        {tmp_path / "ray" / str(number): job for number, job in enumerate(jobs)},
        directory=Path.cwd(),
        executor=RayExecutor(tmp_path / "ray" / "tune"),
        listener=pipeline.Listener(finished=lambda run: finished.append(run.path)),
    )
    assert sorted(finished) == [outcome.run.path for outcome in outcomes]
    for number, (outcome, job) in enumerate(zip(outcomes, jobs, strict=True)):
        assert outcome.shortfall is None
        assert artefacts(outcome.run) == artefacts(train(job, tmp_path / "local" / str(number)))


def test_a_killed_worker_ends_with_the_same_bits_and_no_help(session, tmp_path):
    """Law 3 for a worker: SIGKILL in the middle of its training; the driver starts it again."""
    job = job_of(
        training={"epochs": 60}, compute={"pack": "off", "cpus_per_slot": 1}, ensemble={"members": 2}
    )
    killed: list[int] = []

    def kill_once(slot: Slot, progress: Progress) -> None:
        if progress.epoch >= 3 and not killed:
            killed.append(worker_of(tmp_path / "ray", slot))
            os.kill(killed[0], signal.SIGKILL)

    failures: list[bool] = []
    listener = pipeline.Listener(
        progress=kill_once, failure=lambda slot, reason, again: failures.append(again)
    )
    disturbed = train_on_ray(job, tmp_path / "ray", listener)
    assert failures == [True]
    assert artefacts(disturbed) == artefacts(train(job, tmp_path / "local"))


def worker_of(run: Path, slot: Slot) -> int:
    """The process that trains a slot, as the journal has it."""
    starts = [e for e in Run(run).journal.of_kind("start") if e["pack"] == slot.pack.id]
    return int(starts[-1]["pid"])


def test_two_drivers_of_one_run_exclude_each_other(session, tmp_path):
    """The second is told who has it; the first is undisturbed."""
    job = job_of(training={"epochs": 4})
    refused: list[BaseException] = []
    inside = threading.Event()

    def intrude(slot: Slot, progress: Progress) -> None:
        if inside.is_set():
            return
        inside.set()
        try:
            train(job, tmp_path / "run")
        except RunInUse as fault:
            refused.append(fault)

    run = train_on_ray(job, tmp_path / "run", pipeline.Listener(progress=intrude))
    assert "in use by process" in str(refused[0])
    assert [m["status"] for m in run.manifest()["members"]] == ["done"] * 3
