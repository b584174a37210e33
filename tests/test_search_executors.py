"""Searches of any make choose the same members whoever trains their trials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_search import HIDDEN, RATE, job_of, train, trials, weights

from ensemble_svc import pipeline
from ensemble_svc.cluster.executor import RayExecutor
from ensemble_svc.cluster.session import Session, connect
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.run import Run

RANKED = [
    {"name": "halving", "factor": 2},
    {"name": "halving", "factor": 3},
    {"name": "hyperband", "factor": 2},
]
ALGORITHMS = ["random", "sobol", {"name": "optuna", "batch": 3, "startup": 3}]
REFITS = st.none() | st.fixed_dictionaries({"seeds": st.integers(1, 2), "configurations": st.integers(1, 3)})


@st.composite
def searches(draw: st.DrawFn) -> JobSpec:
    """Mixed structures, in packs of some size, ranked by some scheduler, or copied over each other."""
    layers = st.lists(st.integers(2, 9), max_size=2)
    space = {
        RATE: {"loguniform": [1e-4, 0.3]},
        HIDDEN: {"choice": draw(st.lists(layers, min_size=2, max_size=3, unique_by=str))},
    }
    search: dict[str, Any] = {"space": space, "trials": draw(st.integers(4, 7)), "candidates": "all"}
    if draw(st.integers(0, 3)):
        search |= {"scheduler": draw(st.sampled_from(RANKED)), "refit": draw(REFITS)}
        search |= {"algorithm": draw(st.sampled_from(ALGORITHMS))}
    else:
        search |= {"scheduler": {"name": "pbt", "interval": 1, "quantile": 0.5}}
    compute = {"pack": draw(st.sampled_from([2, 3, "auto"])), "cpus_per_slot": 1}
    job = job_of(search, training={"epochs": draw(st.integers(2, 3))}, compute=compute)
    return job.model_copy(update={"seed": draw(st.integers(0, 99))})


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with connect(num_cpus=2) as found:
        yield found


def decisions(run: Run) -> dict[str, Any]:
    """Who stopped, was copied, was trained again and is in the ensemble, and by what weights."""
    manifest = run.manifest()
    ends = [(m["epochs"], m["stopped"], m["reason"], m.get("lineage", [])) for m in manifest["members"]]
    again = [event["trials"] for event in run.journal.of_kind("refit")]
    return {"ends": ends, "again": again, "ensemble": manifest["ensemble"], "trials": trials(run)}


@pytest.mark.ray
@pytest.mark.slow
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(job=searches())
def test_local_and_ray_choose_the_same_members(
    job: JobSpec, session: Session, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Law 2 for whole searches, to the bit."""
    folder = tmp_path_factory.mktemp("search")
    local = train(job, folder / "local")
    executor = RayExecutor(folder / "ray" / "tune", job.compute.retries)
    run = pipeline.train(job, out=folder / "ray", directory=Path.cwd(), executor=executor)
    assert decisions(run) == decisions(local)
    assert weights(run) == weights(local)
