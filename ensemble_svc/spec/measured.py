"""What each task can be measured by."""

from __future__ import annotations

from typing import Final

from ensemble_svc.spec.clash import Clash as Clash
from ensemble_svc.spec.job import JobSpec, Metric
from ensemble_svc.spec.tasks import Task

METRICS_OF: Final[dict[Task, tuple[Metric, ...]]] = {
    "classification": (
        *("accuracy", "nll", "brier", "ece", "top5", "ece_adaptive", "ece_classwise", "ece_smooth"),
        *("aurc", "excess_aurc", "brier_reliability", "brier_resolution"),
    ),
    "regression": (*("nll", "rmse", "mae", "nll_gaussian", "crps", "pinball", "width90", "coverage_gap"),),
}


def metrics_of(job: JobSpec) -> tuple[Metric, ...]:
    """What the answers of a job can be measured by."""
    if job.task != "multitask":
        return METRICS_OF[job.task]
    kinds = {task.kind for task in job.tasks.values()}
    return tuple(dict.fromkeys(m for task, own in METRICS_OF.items() if task in kinds for m in own))
