"""The last arrows: sealed members → predictions [K, N, …] → ensemble → numbers.

Shapes: K members, N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.aggregate.predictions import combine, mixture_log_density
from ensemble_svc.data.dataset import Array
from ensemble_svc.evaluate.curve import size_curve
from ensemble_svc.evaluate.reliability import reliability
from ensemble_svc.evaluate.summary import summarize
from ensemble_svc.nn.tasks import part_of
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.planning import Prepared
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.randomness import derive_seed
from ensemble_svc.spec.rules import METRICS_OF
from ensemble_svc.spec.tasks import Task
from ensemble_svc.store.atomic import write_atomic
from ensemble_svc.store.document import write_document
from ensemble_svc.store.members import read_tensors, sealed
from ensemble_svc.store.run import Run
from ensemble_svc.store.tensors import Tensors, encode


def conclude(run: Run, job: JobSpec, prepared: Prepared, members: Sequence[MemberSpec]) -> dict[str, str]:
    """Write ``predictions/`` and ``metrics.json`` from the sealed members; returns their hashes.

    Members that diverged or failed take no part; with none left there is nothing to write.
    """
    seals = sealed(run.path)
    done = [m for m in members if m.digest in seals and seals[m.digest]["status"] == "done"]
    if not done:
        return {}
    positions = {"validation": prepared.split.validation, "test": prepared.split.test}
    files: dict[str, str] = {}
    metrics: dict[str, Any] = {}
    best = best_on_validation([seals[m.digest]["metrics"] for m in done])
    for split, rows in positions.items():
        if not len(rows):
            continue
        each = [
            read_tensors(run.path, seals[m.digest]["files"], m.id, f"predictions-{split}.safetensors")
            for m in done
        ]
        stacked = {name: torch.stack([one[name] for one in each]) for name in each[0]}
        files |= _write_predictions(run, split, job, stacked, prepared, rows)
        target = torch.from_numpy(np.ascontiguousarray(prepared.dataset.y[rows]))
        metrics[split] = measure(job, stacked, target, best=best if split == "test" else None)
    files["metrics.json"] = write_document(run.path / "metrics.json", metrics)
    return files


def measure(job: JobSpec, members: Tensors, target: Tensor, *, best: int | None) -> dict[str, Any]:
    """Every number of one split: ensemble, members, gains, size curve, reliability.

    Of several tasks those of the first, and under ``tasks`` those of each by its name.

    Args:
        best: position of the member that was best on validation; None on the rows that chose it, and
            without a validation split.
    """
    if job.task != "multitask":
        return measure_one(job, job.task, members, target, best=best)
    each = {
        name: measure_one(job, task.kind, part_of(members, name), own, best=best)
        for (name, task), own in zip(job.tasks.items(), targets_of(job, target), strict=True)
    }
    first = next(iter(each))
    return {**each[first], "task": first, "tasks": each}


def targets_of(job: JobSpec, target_NT: Tensor) -> list[Tensor]:
    """Each task's own targets: class numbers [N], or numbers [N, 1]."""
    columns = target_NT.split(1, dim=1)
    each = zip(job.tasks.values(), columns, strict=True)
    return [y.squeeze(1).long() if task.kind == "classification" else y.contiguous() for task, y in each]


def measure_one(
    job: JobSpec, task: Task, members: Tensors, target: Tensor, *, best: int | None
) -> dict[str, Any]:
    """The numbers of one task, as ``measure``."""
    names = job.evaluate.metrics
    own = tuple(name for name in names if name in METRICS_OF[task]) if names != "auto" else names
    spec = job.evaluate.model_copy(update={"metrics": own or "auto"})
    seed = derive_seed(job.seed, -1, "bootstrap")
    summary = summarize(task, members, together(members, target), target, spec=spec, best=best, seed=seed)
    curve = size_curve(
        task,
        members,
        target,
        lambda some: together(some, target),
        names=spec.metrics,
        bins=job.evaluate.bins,
        seed=seed,
    )
    extra: dict[str, Any] = {"size_curve": curve}
    if task == "classification":
        extra["reliability"] = reliability(combine(members)["log_probs"], target, bins=job.evaluate.bins)
    return {**summary, **extra}


def together(members: Mapping[str, Tensor], target: Tensor) -> dict[str, Tensor]:
    """The ensemble's prediction; for regression with the mixture's log density of the target."""
    combined = combine(members)
    if "mean" in members:
        combined["log_density"] = mixture_log_density(members["mean"], members["log_variance"], target)
    return combined


def best_on_validation(metrics: Sequence[dict[str, dict[str, float]]]) -> int | None:
    """Position of the member with the lowest validation NLL; None where nothing was validated."""
    scores = [m["validation"]["nll"] for m in metrics if "validation" in m]
    usable = len(scores) == len(metrics) and not all(np.isnan(scores))
    return int(np.nanargmin(scores)) if scores and usable else None


def _write_predictions(
    run: Run, split: str, job: JobSpec, stacked: Tensors, prepared: Prepared, rows: Array
) -> dict[str, str]:
    ids = prepared.dataset.row[rows]
    numeric = np.issubdtype(ids.dtype, np.integer)
    target = torch.from_numpy(np.ascontiguousarray(prepared.dataset.y[rows]))
    targets = {"target": target}
    if job.task == "multitask":
        each = zip(job.tasks, targets_of(job, target), strict=True)
        targets = {f"{name}/target": own for name, own in each}
    tensors = {
        **stacked,
        **targets,
        "row": torch.from_numpy(
            np.ascontiguousarray(ids.astype(np.int64) if numeric else rows.astype(np.int64))
        ),
    }
    name = f"predictions/{split}.safetensors"
    return {name: write_atomic(run.path / name, encode(tensors, {"split": split}))}
