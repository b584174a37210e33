"""What is kept of a split: the members' predictions, the targets of one task or several, and facts of the rows.

Shapes: K candidates (every member that finished), N rows, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ensemble_svc.aggregate.decision import Decision
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.tasks import Tasks
from ensemble_svc.store.run import Run

Splits = Mapping[str, Mapping[str, Tensor]]
"""Predictions by split: the members' [K, N, …], and ``target`` [N, …]; ``seen`` [K, N] of training rows."""
FACTS = ("target", "row", "seen")
TRAINED = "trained."
"""Begins the names of what the trained networks predict, where others are the members in their place."""


def only_members(split: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The members' predictions of a split."""
    return {
        name: value for name, value in split.items() if name not in FACTS and not name.startswith(TRAINED)
    }


def only_trained(split: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trained networks' predictions of a split; none where they are the members."""
    return {n.removeprefix(TRAINED): value for n, value in split.items() if n.startswith(TRAINED)}


def with_targets(job: JobSpec, split: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of how a split is kept: of several tasks their targets side by side."""
    if job.task != "multitask":
        return dict(split)
    keys = [f"{name}/target" for name in job.tasks]
    rest = {name: value for name, value in split.items() if name not in keys}
    return {**rest, "target": torch.stack([split[key].flatten().float() for key in keys], 1)}


def targets_of(job: JobSpec, target_NT: Tensor) -> list[Tensor]:
    """Each task's own targets: class numbers [N], or numbers [N, 1]."""
    return split_targets(job.tasks, target_NT)


def split_targets(tasks: Tasks, target_NT: Tensor) -> list[Tensor]:
    """As ``targets_of``, of the tasks alone."""
    columns = target_NT.split(1, dim=1)
    each = zip(tasks.values(), columns, strict=True)
    return [y.squeeze(1).long() if task.kind == "classification" else y.contiguous() for task, y in each]


def read_predictions(run: Run) -> Splits:
    """All candidates' predictions, by split, looked at through the pages of their files."""
    files = run.manifest()["files"]
    names = [name for name in files if name.startswith("predictions/")]
    splits = [Path(name).stem for name in names]
    job = run.job()
    return {split: with_targets(job, run.mapped(split)) for split in splits}


def chosen_of(decision: Decision, ids: Sequence[str], members: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The chosen members' predictions in the decision's order.

    Args:
        ids: of the K candidates in ``members``.
    """
    place = {member: k for k, member in enumerate(ids)}
    each = [place[member] for member in decision.members]
    if each == list(range(each[0], each[0] + len(each))):  # no copy
        return {name: value[each[0] : each[0] + len(each)] for name, value in members.items()}
    index = torch.tensor(each)
    return {name: value[index] for name, value in members.items()}
