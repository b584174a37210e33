"""Finished runs side by side, on the test rows that all of them predicted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.aggregate.decision import Decision, Prediction
from ensemble_svc.data.dataset import Array
from ensemble_svc.errors import DataError, StoreError
from ensemble_svc.evaluate.contrast import contrast
from ensemble_svc.evaluate.metrics import Names
from ensemble_svc.nn.tasks import part_of
from ensemble_svc.scoring import measured_by, scored
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.randomness import derive_seed
from ensemble_svc.splits import chosen_of, only_members, targets_of, with_targets
from ensemble_svc.store.manifest import decision_of
from ensemble_svc.store.run import Run


@dataclass(frozen=True)
class Side:
    """One run's ensemble on its test rows."""

    run: Run
    row: Array
    """[N] ids."""
    target: Tensor
    prediction: Prediction
    manifest: dict[str, Any]


def compare(runs: Sequence[Run]) -> dict[str, Any]:
    """The runs' ensembles on the test rows they share, and what each gains over the first.

    Returns:
        ``{"rows": N, "runs": [{run, members, device_hours, metrics, gain}]}``; of several tasks ``tasks`` in place
        of the last two, metrics and gain by task.

    Raises:
        DataError: other tasks, data sets or targets, or no row in common.
        StoreError: a run that is not finished.
    """
    names = runs[0].job().evaluate.metrics
    sides = [side_of(run, names) for run in runs]
    first = sides[0]
    for other in sides[1:]:
        _check_alike(first, other)
    common = reduce(np.intersect1d, [side.row for side in sides])
    if not len(common):
        raise DataError("these runs share no test row, so nothing can be compared")
    places = [_places(side, common) for side in sides]
    target = first.target[places[0]]
    for side, place in zip(sides[1:], places[1:], strict=True):
        if not torch.equal(side.target[place], target):
            raise DataError(f"{side.run.path} has other targets for the rows it shares with {first.run.path}")
    said = [{n: v[at] for n, v in side.prediction.items()} for side, at in zip(sides, places, strict=True)]
    numbers = _contrasted(first.run.job(), said, target)
    return {
        "rows": len(common),
        "runs": [_facts(side) | own for side, own in zip(sides, numbers, strict=True)],
    }


def _contrasted(job: JobSpec, said: Sequence[Prediction], target: Tensor) -> list[dict[str, Any]]:
    """Each prediction's metrics and gains over the first; of several tasks those of each, under ``tasks``."""
    seed = derive_seed(job.seed, -1, "bootstrap")
    if job.task != "multitask":
        return contrast(job.task, said, target, spec=measured_by(job, job.task), seed=seed)
    each = {
        name: contrast(
            task.kind,
            [part_of(one, name) for one in said],
            own,
            spec=measured_by(job, task.kind),
            seed=seed,
        )
        for (name, task), own in zip(job.tasks.items(), targets_of(job, target), strict=True)
    }
    return [{"tasks": {name: found[i] for name, found in each.items()}} for i in range(len(said))]


def side_of(run: Run, names: Names = "auto") -> Side:
    """The run's ensemble on its test rows.

    Args:
        names: metrics that it is to be measured by.

    Raises:
        StoreError: a run that is not finished, or has no test rows.
    """
    manifest = run.manifest()
    if not manifest["ensemble"]["members"] or "predictions/test.safetensors" not in manifest["files"]:
        raise StoreError(f"{run.path} has no ensemble with test rows; finish the training command first")
    job, decision = run.job(), Decision.from_json(json.dumps(decision_of(manifest)))
    split = with_targets(job, run.predictions("test"))
    members = chosen_of(decision, manifest["candidates"], only_members(split))
    prediction = _scored(job, decision, members, split["target"], names)
    return Side(run, split["row"].numpy(), split["target"], prediction, manifest)


def _scored(
    job: JobSpec, decision: Decision, members: Mapping[str, Tensor], target: Tensor, names: Names
) -> Prediction:
    """What the metrics named need of the ensemble; of several tasks of each, its name before the key."""
    asked = () if names == "auto" else tuple(names)
    if job.task != "multitask":
        return scored(decision, members, target, asked)
    found: Prediction = {}
    for name, own in zip(job.tasks, targets_of(job, target), strict=True):
        said = scored(decision.of(name), part_of(members, name), own, asked)
        found |= {f"{name}/{key}": value for key, value in said.items()}
    return found


def _check_alike(first: Side, other: Side) -> None:
    """The same rows under the same ids: the same data, as their hash says."""
    pair = f"{first.run.path} and {other.run.path}"
    sides = (first, other)
    tasks, hashes = zip(*((_answers(s), s.run.rows_hash()) for s in sides), strict=True)
    for values, words in ((tasks, "have other tasks"), (hashes, "are of other data")):
        if values[0] != values[1]:
            raise DataError(f"{pair} {words}; only runs on the same data can be compared row by row")


def _answers(side: Side) -> tuple[str, ...]:
    """What the run answers: its kind, and of several tasks their names."""
    return side.manifest["task"], *(name for name, _ in side.manifest["input_schema"].get("tasks") or ())


def _places(side: Side, common: Array) -> Tensor:
    order = np.argsort(side.row, kind="stable")
    return torch.from_numpy(order[np.searchsorted(side.row, common, sorter=order)])


def _facts(side: Side) -> dict[str, Any]:
    actual = side.manifest.get("actual") or {}
    return {
        "run": str(side.run.path),
        "members": len(side.manifest["ensemble"]["members"]),
        "device_hours": actual.get("device_hours"),
    }
