"""From predictions to an ensemble, decided on held-out rows.

Shapes: K candidates (every member that finished), N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ensemble_svc.aggregate.bytask import decide_tasks
from ensemble_svc.aggregate.choosing import decide, shared_out
from ensemble_svc.aggregate.decision import Decision, HeldOut
from ensemble_svc.nn.tasks import part_of
from ensemble_svc.spec.aggregate import AggregateSpec
from ensemble_svc.spec.data import UNSEEN
from ensemble_svc.spec.direction import toward_less
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.randomness import derive_seed
from ensemble_svc.splits import Splits, only_members, targets_of


def held_out(job: JobSpec, predictions: Splits) -> HeldOut | None:
    """The rows that decide, of several tasks with the answers of all; None where the job keeps none."""
    unseen = job.data.validation if job.data.validation in UNSEEN else None
    split = predictions.get("train" if unseen else "validation")
    if split is None:
        return None
    members = only_members(split)
    if unseen is None:
        return HeldOut("validation", members, split["target"])
    return HeldOut("oob" if unseen == "oob" else "oof", members, split["target"], split["seen"].bool())


def those_that_calibrate(job: JobSpec, rows: HeldOut | None) -> HeldOut | None:
    """Of the held-out rows those that select and calibrate the ensemble: half of them, if a coverage is fitted too."""
    return shared_out(job.aggregate, rows, derive_seed(job.seed, -1, "select"))[0]


def decided(job: JobSpec, spec: AggregateSpec, ids: Sequence[str], rows: HeldOut | None) -> Decision:
    """The ensemble that ``spec`` asks for; the same rows give the same one."""
    seed = derive_seed(job.seed, -1, "select")
    if job.task != "multitask":
        return decide(spec, ids, rows, seed=seed)
    return decide_tasks(spec, ids, None if rows is None else _of_tasks(job, rows), job.tasks, seed=seed)


def _of_tasks(job: JobSpec, rows: HeldOut) -> dict[str, HeldOut]:
    return {
        name: HeldOut(rows.kind, part_of(rows.said, name), own, rows.seen_KN)
        for name, own in zip(job.tasks, targets_of(job, rows.target), strict=True)
    }


def best_on_validation(job: JobSpec, metrics: Sequence[Mapping[str, Mapping[str, float]]]) -> int | None:
    """Position of the member with the lowest NLL on validation rows, or on training rows it has not seen.

    Of a search, the best by its metric. None where there are none.
    """
    name = job.search.metric if job.search else "nll"
    sign = toward_less(name)
    held = [m.get("validation") or m.get("oob") for m in metrics]
    scores = [sign * m[name] for m in held if m]
    usable = len(scores) == len(metrics) and not all(np.isnan(scores))
    return int(np.nanargmin(scores)) if scores and usable else None
