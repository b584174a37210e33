"""Small trainings for the laws of training: the job, its slots in this process, deaths, and what is compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ensemble_svc.plan.executor import Resources
from ensemble_svc.plan.plan import Plan
from ensemble_svc.plan.progress import Progress
from ensemble_svc.planning import make_plan, prepare
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.members import read_tensors, sealed
from ensemble_svc.train.assemble import Stack
from ensemble_svc.train.fit import fit
from ensemble_svc.train.payload import Payload

ONE_CORE = Resources(cpus=1)
BASE: dict[str, Any] = {
    "name": "law",
    "data": {"source": "digits", "preprocess": ("standardize",), "validation": 0.2, "test": 0.4},
    "model": {"name": "mlp", "hidden": (16,)},
    "training": {"epochs": 3, "batch_size": 64},
    "ensemble": {"members": 3},
}


def job_of(**changes: Any) -> JobSpec:
    """The base job with dotted keys replaced; ``__`` stands for the dot."""
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in BASE.items()}
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            data.setdefault(section, {})[key] = value
        else:
            data[section] = value
    return JobSpec.model_validate(data)


def payload_of(job: JobSpec, run: Path, commit_every_s: float = 1e9) -> tuple[Payload, Plan]:
    run.mkdir(parents=True, exist_ok=True)
    prepared = prepare(job, Path.cwd())
    plan = make_plan(job, prepared, ONE_CORE)
    return Payload(prepared.dataset, prepared.split, prepared.schema, str(run), commit_every_s), plan


def train(job: JobSpec, run: Path, report: Any = lambda progress: None, **settings: Any) -> dict[int, Stack]:
    """Train a job's slots in this process; the members' sealed tensors by index."""
    payload, plan = payload_of(job, run, **settings)
    for slot in plan.slots:
        fit(payload, slot, report)
    return results(run)


def results(run: Path) -> dict[int, Stack]:
    found = {}
    for event in sealed(run).values():
        names = [Path(name).name for name in event["files"] if name.endswith(".safetensors")]
        parts = {n: read_tensors(run, event["files"], event["member"], n) for n in names}
        found[event["index"]] = {f"{n}/{k}": t for n, tensors in parts.items() for k, t in tensors.items()}
    return found


def assert_close(packed: dict[int, Stack], alone: dict[int, Stack]) -> None:
    assert packed.keys() == alone.keys()
    for index, tensors in alone.items():
        for name, value in tensors.items():
            torch.testing.assert_close(
                packed[index][name], value, rtol=2e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}"
            )


def assert_same_bits(one: dict[int, Stack], other: dict[int, Stack]) -> None:
    assert one.keys() == other.keys()
    for index, tensors in one.items():
        for name, value in tensors.items():
            assert torch.equal(value, other[index][name]), f"member {index}, {name}"


def both(job: JobSpec, tmp_path: Path) -> tuple[dict[int, Stack], dict[int, Stack]]:
    together = train(job, tmp_path / "packed")
    apart = train(
        job.model_copy(update={"compute": job.compute.model_copy(update={"pack": "off"})}), tmp_path / "alone"
    )
    return together, apart


class Killed(Exception):
    """Stands for a death in the middle of a slot."""


def dying(epoch: int) -> Any:
    """Dies when an epoch has been reported."""

    def report(progress: Progress) -> None:
        if progress.epoch == epoch:
            raise Killed

    return report
