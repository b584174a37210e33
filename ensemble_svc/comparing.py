"""Finished runs side by side, on the test rows that all of them predicted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.aggregate.decision import Decision, Prediction, apply
from ensemble_svc.data.dataset import Array
from ensemble_svc.deciding import chosen_of, only_members
from ensemble_svc.errors import DataError, StoreError
from ensemble_svc.evaluate.contrast import contrast
from ensemble_svc.spec.randomness import derive_seed
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
        ``{"rows": N, "runs": [{run, members, device_hours, metrics, gain}]}``.

    Raises:
        DataError: other tasks, data sets or targets, or no row in common.
        StoreError: a run that is not finished.
    """
    sides = [side_of(run) for run in runs]
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
    job = first.run.job()
    assert job.task != "multitask"  # each side was checked
    found = contrast(
        job.task,
        [{n: v[at] for n, v in side.prediction.items()} for side, at in zip(sides, places, strict=True)],
        target,
        spec=job.evaluate,
        seed=derive_seed(job.seed, -1, "bootstrap"),
    )
    return {
        "rows": len(common),
        "runs": [_facts(side) | numbers for side, numbers in zip(sides, found, strict=True)],
    }


def side_of(run: Run) -> Side:
    """The run's ensemble on its test rows.

    Raises:
        StoreError: a run that is not finished, or has no test rows.
    """
    manifest = run.manifest()
    if not manifest["ensemble"]["members"] or "predictions/test.safetensors" not in manifest["files"]:
        raise StoreError(f"{run.path} has no ensemble with test rows; finish the training command first")
    if manifest["task"] == "multitask":
        raise DataError(
            "runs of several tasks cannot be compared yet; compare their metrics.json task by task"
        )
    decision = Decision.from_json(json.dumps(decision_of(manifest)))
    split = run.predictions("test")
    members = chosen_of(decision, manifest["candidates"], only_members(split))
    target = split["target"]
    prediction = apply(decision, members, None if "log_probs" in members else target)
    return Side(run, split["row"].numpy(), target, prediction, manifest)


def _check_alike(first: Side, other: Side) -> None:
    """The same rows under the same ids: the same data, as their hash says."""
    pair = f"{first.run.path} and {other.run.path}"
    tasks, hashes = zip(*((s.manifest["task"], s.run.rows_hash()) for s in (first, other)), strict=True)
    for values, words in ((tasks, "have other tasks"), (hashes, "are of other data")):
        if values[0] != values[1]:
            raise DataError(f"{pair} {words}; only runs on the same data can be compared row by row")


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
