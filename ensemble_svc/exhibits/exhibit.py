"""What a run's report shows besides its metrics, worked out once and kept in ``exhibits.json``.

All of it is of the rows that are reported, and of the ensemble as it was decided on others; nothing is chosen or fitted
here. The file is small whatever the run: curves have a few hundred points, matrices 32 lines, rows are a dozen.

Shapes: K candidates, N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ensemble_svc.aggregate.decision import Decision
from ensemble_svc.exhibits import classes, numbers
from ensemble_svc.exhibits.importance import importance
from ensemble_svc.exhibits.inputs import inputs
from ensemble_svc.exhibits.pairs import pairs
from ensemble_svc.exhibits.said import Said
from ensemble_svc.exhibits.trials import trials_of
from ensemble_svc.nn.tasks import part_of
from ensemble_svc.planning import Prepared
from ensemble_svc.scoring import measured_by
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.tasks import Task
from ensemble_svc.splits import Splits, only_members, targets_of
from ensemble_svc.store.document import write_document
from ensemble_svc.store.run import EXHIBITS, Run

REPORTED = ("test", "validation")
"""Which split is shown: the first that there is."""


def write_exhibits(
    run: Run, job: JobSpec, decision: Decision, ids: Sequence[str], predictions: Splits, data: Prepared | None
) -> dict[str, str]:
    """Write ``exhibits.json``; returns it with its SHA-256.

    Args:
        ids: of the K candidates of the predictions.
        data: the run's own, where the inputs can be read.
    """
    body: dict[str, Any] = {"search": searched(job, run.manifest()["members"])}
    split = next((name for name in REPORTED if name in predictions), None)
    if split is not None:
        members, target = only_members(predictions[split]), predictions[split]["target"]
        tasks = exhibits(job, decision, ids, members, target)
        body |= {"split": split, "rows": len(target), "tasks": tasks}
        if data is not None:
            body["inputs"] = _inputs(data, split, tasks)
    return {EXHIBITS: write_document(run.path / EXHIBITS, body)}


def exhibits(
    job: JobSpec, decision: Decision, ids: Sequence[str], members: Mapping[str, Tensor], target: Tensor
) -> dict[str, dict[str, Any]]:
    """What is shown of each task; that of a lone one stands under the empty name.

    Args:
        ids: of the K candidates in ``members``.
    """
    if job.task != "multitask":
        return {"": exhibit(job, job.task, decision, _chosen(decision, ids, members), target)}
    each = zip(job.tasks.items(), targets_of(job, target), strict=True)
    return {
        name: exhibit(job, task.kind, decision.of(name), _chosen(decision, ids, part_of(members, name)), own)
        for (name, task), own in each
    }


def _chosen(decision: Decision, ids: Sequence[str], members: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
    """What each of the decision's members says, in its order, without a copy."""
    place = {member: k for k, member in enumerate(ids)}
    return {name: [stack[place[one]] for one in decision.members] for name, stack in members.items()}


def exhibit(job: JobSpec, task: Task, decision: Decision, chosen: Said, target: Tensor) -> dict[str, Any]:
    """What is shown of one task: as ``classes.shown_of`` or ``numbers.shown_of``, and ``pairs`` of several members.

    Args:
        chosen: predictions of the decision's members, in its order.
    """
    if task == "classification":
        found = classes.shown_of(decision, chosen, target, bins=measured_by(job, task).bins)
    else:
        target = target.reshape(chosen["mean"][0].shape)
        found = numbers.shown_of(decision, chosen, target)
    if len(decision.members) > 1:
        found["pairs"] = pairs(decision.members, decision.weights, chosen, target)
    return found


def searched(job: JobSpec, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How much each searched key matters; nothing without a search.

    Args:
        entries: the manifest's members.
    """
    if job.search is None:
        return {}
    space = job.search.flat.laws
    return {"importance": importance(space, trials_of(list(space), job.search.metric, entries))}


def _inputs(data: Prepared, split: str, tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The inputs of the rows that any task shows, with their ``positions`` in the split and ``ids``."""
    shown = [
        fact["position"] for own in tasks.values() for some in own.get("rows", {}).values() for fact in some
    ]
    positions = sorted(set(shown))
    rows = np.asarray(getattr(data.split, split))[positions]
    if not positions:
        return {}
    found = inputs(data.dataset, rows.tolist(), data.split.train)
    return {"positions": positions, "ids": data.dataset.row[rows].tolist(), **found}
