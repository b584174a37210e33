"""One network that learned what an ensemble says: trained as any member is, on the ensemble's predictions.

The student is a run of one member, with a folder of its own, that reads the teacher's data and split. It trains on
what the ensemble says of the training rows; it is stopped, scored and reported by the targets, as every member is.
How it does against the ensemble and against the ordinary members is measured on the test rows, which neither
trained nor selected anything.

Shapes: N rows, C classes, T targets.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.comparing import side_of
from ensemble_svc.data.dataset import Array, Dataset, Lesson
from ensemble_svc.errors import DataError, SpecError, StoreError
from ensemble_svc.evaluate.contrast import contrast
from ensemble_svc.pipeline import Listener, train
from ensemble_svc.plan.executor import Executor
from ensemble_svc.planning import DataSets, prepare
from ensemble_svc.predictor import Ensemble
from ensemble_svc.spec.data import UNSEEN
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.randomness import derive_seed
from ensemble_svc.splits import only_members
from ensemble_svc.store.document import write_document
from ensemble_svc.store.manifest import amend_manifest, decision_of
from ensemble_svc.store.members import parted
from ensemble_svc.store.run import DISTILLATION, Run

FREE = ("name", "model", "training", "compute", "evaluate")
"""Sections in which a student may differ from its teacher's job."""


def student_overrides(run: Run, overrides: Sequence[str]) -> list[str]:
    """What makes the teacher's job the student's: one member of all training rows, then the user's own.

    A search is dropped: the student's recipe is the job's own, not a trial's.

    Raises:
        SpecError: an override of what the student shares with its teacher.
    """
    for override in overrides:
        if override.split("=")[0].split(".")[0].strip() not in FREE:
            raise SpecError(
                f"--set {override}: a student has its teacher's data, split and seed; only {', '.join(FREE)} may change"
            )
    job = run.job()
    name = f"{job.name[:90]}-student"
    rows = ["data.validation=0"] if job.data.validation in UNSEEN else []
    search = ["search=null"] if job.search is not None else []
    return [f"name={name}", *search, "ensemble={members: 1}", "aggregate={}", *rows, *overrides]


def distill(
    teacher: Run,
    job: JobSpec,
    out: Path,
    *,
    temperature: float,
    executor: Executor,
    listener: Listener | None = None,
) -> Run:
    """Train the student in ``out`` and write how it does; the same call again goes on where it was.

    Args:
        job: the student's, as ``student_overrides`` makes it.
        temperature: of the probabilities that it learns, 1 for as they are; numbers have none.

    Raises:
        StoreError: no finished teacher.
        DataError: a teacher whose data are not there any more, or of several tasks.
        EnsembleSvcError: as ``pipeline.train``.
    """
    ensemble, directory = Ensemble.load(teacher.path), teacher.directory
    _check(teacher, job, temperature)
    read = DataSets()
    prepared = prepare(job, directory, read=read)
    manifest = teacher.manifest()
    if (prepared.dataset.hash, prepared.split.hash) != (teacher.rows_hash(), manifest["split_hash"]):
        raise DataError(f"{teacher.path}: its source holds other data now, or splits them otherwise")
    lesson = teach(ensemble, prepared.dataset, prepared.split.train, temperature, _identity(teacher))
    read.put(job, directory, replace(prepared.dataset, lesson=lesson))
    run = train(job, out=out, directory=directory, executor=executor, listener=listener, read=read)
    if len(prepared.split.test):
        found = {"teacher": teacher.path.name, "temperature": temperature, **standing(teacher, run)}
        found["rows_hash"] = prepared.dataset.hash
        amend_manifest(run.path, {DISTILLATION: write_document(run.path / DISTILLATION, found)})
    return run


def teach(
    ensemble: Ensemble, dataset: Dataset, train_rows: Array, temperature: float, teacher: str
) -> Lesson:
    """What the ensemble says of the training rows, combined and calibrated as it is."""
    said = ensemble.predict(dataset.x[train_rows])
    if ensemble.schema.classes:
        log_probs_NC = torch.from_numpy(said.mean).double().clamp_min(torch.finfo(torch.float32).tiny).log()
        says = (log_probs_NC / temperature).softmax(-1).float().numpy()
    else:
        says = np.concatenate([said.mean, said.uncertainty["total"]], axis=1)
    whole = np.full((len(dataset), says.shape[1]), np.nan, dtype=np.float32)
    whole[train_rows] = says
    return Lesson(whole, temperature, teacher)


def standing(teacher: Run, student: Run) -> dict[str, Any]:
    """The student beside the ensemble and its ordinary members, on the test rows.

    Returns:
        ``rows``; ``members`` of the teacher; ``student``, ``ensemble`` and ``member`` (the mean over the run's members)
        with the metrics of each and its ``agreement`` with the ensemble (share of rows with the same class; for
        numbers the root mean squared distance of the means); ``gain`` of the student over the ensemble,
        with paired intervals.
    """
    job = teacher.job()
    sides = [side_of(run, job.evaluate.metrics) for run in (teacher, student)]
    if not torch.equal(sides[0].target, sides[1].target):
        raise StoreError(f"{student.path} and {teacher.path} have other test rows")
    assert job.task != "multitask"
    ensemble, taught = contrast(
        job.task,
        [side.prediction for side in sides],
        sides[0].target,
        spec=job.evaluate,
        seed=derive_seed(job.seed, -1, "bootstrap"),
    )
    members = only_members(teacher.predictions("test"))
    said = _said(sides[0].prediction)
    each = [_apart(said, own) for own in _said(members)]
    mean = teacher.metrics()["test"]["members"]["mean"]
    return {
        "rows": len(sides[0].target),
        "members": len(sides[0].manifest["ensemble"]["members"]),
        "student": {**taught["metrics"], "agreement": _apart(said, _said(sides[1].prediction))},
        "ensemble": {**ensemble["metrics"], "agreement": _apart(said, said)},
        "member": {**mean, "agreement": sum(each) / len(each)},
        "gain": taught["gain"],
    }


def _check(teacher: Run, job: JobSpec, temperature: float) -> None:
    if job.task == "multitask":
        raise DataError(f"{teacher.path}: an ensemble of several tasks cannot be distilled yet")
    if not 0 < temperature < float("inf"):
        raise SpecError(f"--temperature {temperature:g}: it is a finite number above 0")
    if job.task == "regression" and temperature != 1:
        raise SpecError("--temperature is of probabilities; a regression has none")


def _identity(teacher: Run) -> str:
    """The same for the same ensemble: its members' digests, and what was decided about them."""
    manifest = teacher.manifest()
    digests = {entry["id"]: entry["digest"] for entry in manifest["members"]}
    trained = [parted(one)[0] for one in manifest["ensemble"]["members"]]
    body = [decision_of(manifest), [digests[member] for member in trained]]
    return sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _said(prediction: Any) -> Tensor:
    """Classes, or means."""
    return prediction["log_probs"].argmax(-1) if "log_probs" in prediction else prediction["mean"].double()


def _apart(first: Tensor, second: Tensor) -> float:
    if first.is_floating_point():
        return (first - second).square().mean().sqrt().item()
    return (first == second).double().mean().item()
