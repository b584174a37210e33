"""Rules between a job's several tasks, its source and its training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ensemble_svc.errors import did_you_mean
from ensemble_svc.registry import Choice
from ensemble_svc.spec.clash import Clash
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.data import Csv, Digits, Idx, ImageFolder, Parquet
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.losses import AutoLoss, CrossEntropy, GaussianNll, Mse
from ensemble_svc.spec.regularizers import CutMix
from ensemble_svc.spec.tasks import Task
from ensemble_svc.spec.wording import shown

_LOSSES_OF: Final[dict[Task, tuple[type[Choice], ...]]] = {
    "classification": (CrossEntropy,),
    "regression": (GaussianNll, Mse),
}


def task_clashes(job: JobSpec) -> Iterator[Clash]:
    """Tasks without ``task: multitask`` or the other way round, and tasks that cannot be learned together."""
    if job.task == "multitask" and not job.tasks:
        words = "'multitask' needs tasks, a key for each target, as in tasks: {price: {kind: regression}}"
        keys: tuple[KeyPath, ...] = (("task",), ("tasks",))
        yield Clash(keys if "tasks" not in job.model_fields_set else keys[::-1], words)
    elif job.task == "multitask":
        yield from _names(job)
        yield from _targets(job)
        yield from _learning(job)
    elif job.tasks:
        words = f"are given, and the task is '{job.task}'; write 'task: multitask'"
        yield Clash((("tasks",), ("task",)), words)
    if job.task != "multitask" and job.training.task_weights != "by_hand":
        path: KeyPath = ("training", "task_weights")
        yield Clash((path, ("task",)), f"'{job.training.task_weights}' weighs several tasks; there is one")


def _names(job: JobSpec) -> Iterator[Clash]:
    for name in job.tasks:
        if not name or "/" in name:
            words = f"{shown(name)} names no task; the name of a target without '/' does"
            yield Clash((("tasks", name),), words)


def _targets(job: JobSpec) -> Iterator[Clash]:
    """A target for each task, and a task for each target."""
    source, path = job.data.source, ("data", "source")
    if isinstance(source, Digits | ImageFolder | Idx):
        yield Clash((path, ("task",)), f"'{source.name}' has one target; write 'task: classification'")
    if not isinstance(source, Csv | Parquet) or not source.target:
        return
    targets = (source.target,) if isinstance(source.target, str) else source.target
    for name in job.tasks:
        if name not in targets:
            words = (
                f"is a task without target{did_you_mean(name, targets) or '; add it to data.source.target'}"
            )
            yield Clash((("tasks", name), (*path, "target")), words)
    for name in targets:
        if name not in job.tasks:
            words = f"{shown(name)} is a target without task; add it to tasks, or name it in data.source.drop"
            yield Clash(((*path, "target"), ("tasks",)), words)


def _learning(job: JobSpec) -> Iterator[Clash]:
    if not any(task.weight for task in job.tasks.values()):
        yield Clash(
            (("tasks",),), "have the weight 0, all of them, so that nothing is learned; give one of them 1"
        )
    if not isinstance(job.training.loss, AutoLoss):
        words = (
            f"'{job.training.loss.name}' is for one task; of several give each its own, as in tasks.NAME.loss"
        )
        yield Clash((("training", "loss"), ("task",)), words)
    for name, task in job.tasks.items():
        if not isinstance(task.loss, losses := (AutoLoss, *_LOSSES_OF[task.kind])):
            known = ", ".join(loss.model_fields["name"].default for loss in losses)
            words = f"'{task.loss.name}' is not a loss for {task.kind}; allowed: {known}"
            yield Clash((("tasks", name, "loss"), ("tasks", name, "kind")), words)
    numbers = [name for name, task in job.tasks.items() if task.kind == "regression"]
    cuts = [i for i, rule in enumerate(job.training.regularizers) if isinstance(rule, CutMix)]
    for index in cuts if numbers else ():
        words = f"'cutmix' mixes labels, and {shown(numbers[0])} is a number; use mixup"
        yield Clash((("training", "regularizers", index), ("tasks", numbers[0])), words)
