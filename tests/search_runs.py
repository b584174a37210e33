"""Small searches: the job, its training in this process, deaths on the way, and what must be the same afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ensemble_svc import pipeline
from ensemble_svc.listening import Listener
from ensemble_svc.local import LocalExecutor
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import parse_job
from ensemble_svc.spec.yaml import frozen
from ensemble_svc.store.run import Run

RATE, DROP, HIDDEN = "training.optimizer.lr", "model.dropout", "model.hidden"
SPACE = {RATE: {"loguniform": [1e-4, 0.3]}, DROP: {"uniform": [0, 0.5]}}
DECAY = "training.optimizer.weight_decay"
STILL = {RATE: SPACE[RATE], DECAY: {"loguniform": [1e-4, 1.0]}}
"""A space whose trials draw nothing inside a step, so that packed and alone differ by round-off."""
MIXED = {**STILL, HIDDEN: {"choice": [[8], [4, 4]]}}


def job_of(search: dict[str, Any], **sections: Any) -> JobSpec:
    data: dict[str, Any] = {
        "name": "search",
        "data": {"source": "digits", "preprocess": ["standardize"], "test": 0.5},
        "model": {"name": "mlp", "hidden": [8]},
        "training": {"epochs": 2, "batch_size": 128},
        "search": {"space": SPACE, **search},
        "aggregate": {"select": "greedy"},
        "evaluate": {"resamples": 100},
        "compute": {"executor": "local", "measure": "off", "health": "off"},
    }
    for section, value in sections.items():
        data[section] = {**data.get(section, {}), **value}
    return parse_job(data)


def train(job: JobSpec, out: Path, listener: Listener | None = None) -> Run:
    executor = LocalExecutor(retries=0)
    return pipeline.train(job, out=out, directory=Path.cwd(), executor=executor, listener=listener)


def trials(run: Run) -> list[dict[str, Any]]:
    return [frozen(member["hyperparameters"]) for member in run.manifest()["members"]]


def weights(run: Run) -> dict[str, str]:
    members = run.manifest()["members"]
    return {m["id"]: m["files"][f"members/{m['id']}/weights.safetensors"] for m in members}


def assert_same_weights(run: Run, other: Run) -> None:
    """To float tolerance, and no pack left anything in the run's folder."""
    for member in run.manifest()["members"]:
        theirs = other.tensors(member["id"], "weights.safetensors")
        for name, value in run.tensors(member["id"], "weights.safetensors").items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-5)
    assert not list((run.path / "packs").glob("*"))


class Killed(Exception):
    """Stands for a SIGKILL between two events."""


def killed_at(number: int) -> Listener:
    """Ends the run at its ``number``-th end of an epoch, counted over all packs."""
    seen = 0

    def progress(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            raise Killed

    return Listener(progress=progress)
