"""Small runs of the whole way: the job, its training in this process, and what of a run must be the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ensemble_svc import pipeline
from ensemble_svc.local import LocalExecutor
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.run import Run


def job_of(**changes: Any) -> JobSpec:
    data: dict[str, Any] = {
        "name": "whole",
        "data": {"source": "digits", "preprocess": ("standardize",), "test": 0.5},
        "model": {"name": "mlp", "hidden": (16,), "norm": "batch", "dropout": 0.1},
        "training": {"epochs": 2, "batch_size": 128},
        "ensemble": {"members": 3},
        "evaluate": {"resamples": 100},
        "compute": {"executor": "local", "commit_every_s": 0.0},
    }
    for section, value in changes.items():
        data[section] = {**data[section], **value} if isinstance(data.get(section), dict) else value
    return JobSpec.model_validate(data)


def train(job: JobSpec, out: Path) -> Run:
    return pipeline.train(job, out=out, directory=Path.cwd(), executor=LocalExecutor())


def artefacts(run: Run) -> dict[str, str]:
    """Hashes of everything that numbers are made of; reports and histories hold times."""
    files = run.manifest()["files"]
    for member in run.manifest()["members"]:
        files |= member["files"]
    return {n: sha for n, sha in files.items() if n.endswith((".safetensors", ".npy")) or n == "metrics.json"}
