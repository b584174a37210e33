"""A work as a job of ours, and what a finished run says of its training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import Rows
from benchmarks.nets import MODELS
from benchmarks.work import Work
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import parse_job
from ensemble_svc.store.run import Run

NOT_TRAINING = ("data", "evaluate", "report")
"""Stages of the pipeline that the training phase leaves out; planning, with what it measures, is part of it."""


def write_job(work: Work, data: Rows, folder: Path, *, pack: str, executor: str = "local") -> JobSpec:
    """The work as a job, its rows in a file of ``folder``.

    Args:
        pack: off, auto, or all for one pack of all members.
    """
    write_rows(data, folder)
    compute = {"pack": work.members if pack == "all" else pack, "executor": executor}
    return parse_job(document(work, MODELS[work.model].section, compute))


def write_rows(data: Rows, folder: Path) -> None:
    """Leave the rows where the job of :func:`document` looks for them."""
    parts = {"X_train": data.x, "y_train": data.y, "X_test": data.x_test, "y_test": data.y_test}
    np.savez(folder / "rows.npz", **{name: part.numpy() for name, part in parts.items()})


def document(work: Work, model: Mapping[str, Any], compute: Mapping[str, Any]) -> dict[str, Any]:
    """What the job's file would say."""
    return {
        "name": work.name,
        "seed": work.seed,
        "data": {
            "source": {"name": "npz", "path": "rows.npz", "x": "X", "y": "y"},
            "validation": 0.0,
            "test": "test",
        },
        "model": dict(model),
        "training": {
            "epochs": work.epochs,
            "batch_size": work.batch,
            "optimizer": {"name": "adamw", "lr": work.lr, "weight_decay": work.weight_decay},
            "schedule": "constant",
        },
        "ensemble": {"members": work.members},
        "compute": dict(compute),
    }


def training_seconds(run: Run) -> float:
    """Seconds of planning and training, as the run's manifest has them."""
    stages: dict[str, float] = run.manifest()["seconds"]
    return sum(seconds for stage, seconds in stages.items() if stage not in NOT_TRAINING)


def threads_of(run: Run) -> int:
    """Threads of the first member's slot."""
    return int(run.manifest()["members"][0]["where"]["cpus"])
