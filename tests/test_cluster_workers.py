"""Measuring on Ray: workers beside each other, on one machine, that leave it as they found it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from kept_ray import KeptRay
from whole_runs import job_of

from ensemble_svc import pipeline
from ensemble_svc.cluster.executor import RayExecutor
from ensemble_svc.cluster.session import Session
from ensemble_svc.errors import ClusterError
from ensemble_svc.planning import measured_in

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def session(kept_ray: KeptRay) -> Session:
    return kept_ray(num_cpus=2)


@dataclass(frozen=True)
class Stay:
    """A task that stays for a while and tells who it was, when, and on which GPUs."""

    seconds: float

    def __call__(self, payload: str) -> tuple[int, float, float, str | None, str]:
        began = time.time()
        time.sleep(self.seconds)
        return os.getpid(), began, time.time(), os.environ.get("CUDA_VISIBLE_DEVICES"), payload


def test_tasks_of_one_call_run_at_the_same_time_in_processes_that_stay(session, tmp_path):
    with RayExecutor(tmp_path / "tune").workers(2, "shared", cpus=1, gpus=0) as call:
        call([Stay(2.0)] * 2)
        first, second = call([Stay(1.0)] * 2)
        again = call([Stay(0.1)])
    assert first[0] != second[0]
    assert again[0][0] in {first[0], second[0]}
    assert max(first[1], second[1]) < min(first[2], second[2])
    assert (first[3], first[4]) == ("", "shared")


def test_a_machine_without_room_is_not_waited_for_for_ever(session, tmp_path, monkeypatch):
    monkeypatch.setattr("ensemble_svc.cluster.executor.WORKERS_WAIT_S", 0.5)
    with (
        pytest.raises(ClusterError, match="no machine has room for 3 workers"),
        RayExecutor(tmp_path / "tune").workers(3, "", cpus=1, gpus=0),
    ):
        pass


def test_a_run_is_measured_beside_each_other_and_then_has_the_machine(session, tmp_path):
    job = job_of(compute={"measure": "on", "executor": "ray"}, ensemble={"members": 4})
    executor = RayExecutor(tmp_path / "tune")
    run = pipeline.train(job, out=tmp_path / "run", directory=Path.cwd(), executor=executor)
    [timings] = measured_in(run.path).groups.values()
    assert {timing.at_once for timing in timings} == {1, 2}
    assert run.manifest()["forecast"]["by"] == "measured"
    for _ in range(50):
        if ray.available_resources().get("CPU") == 2:
            break
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == 2
