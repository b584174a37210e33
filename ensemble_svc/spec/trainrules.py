"""Rules of the ``model`` and ``training`` sections, and of what is measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ensemble_svc.registry import Choice
from ensemble_svc.spec.activations import Sigmoid
from ensemble_svc.spec.averages import BestN, Swa
from ensemble_svc.spec.clash import Clash as Clash
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.data import (
    UNSEEN,
    BreastCancer,
    Csv,
    Parquet,
)
from ensemble_svc.spec.fitness import unfit
from ensemble_svc.spec.job import JobSpec, Metric
from ensemble_svc.spec.losses import AutoLoss, CrossEntropy, GaussianNll, Mse
from ensemble_svc.spec.measured import metrics_of
from ensemble_svc.spec.model import Network
from ensemble_svc.spec.norms import WeightNorm
from ensemble_svc.spec.optimizers import Sgd
from ensemble_svc.spec.preparation import flattens
from ensemble_svc.spec.regularizers import CutMix, MaxNorm, Mixup, Sparsity
from ensemble_svc.spec.schedules import Cosine, Linear, Plateau, StepDecay
from ensemble_svc.spec.source import escaped
from ensemble_svc.spec.tasks import Task

_LOSSES_OF: Final[dict[Task, tuple[type[Choice], ...]]] = {
    "classification": (AutoLoss, CrossEntropy),
    "regression": (AutoLoss, GaussianNll, Mse),
}


def mixing(job: JobSpec) -> Iterator[Clash]:
    """Rows are mixed once, and pieces of images between images with classes."""
    seen: dict[str, int] = {}
    for index, rule in enumerate(job.training.regularizers):
        if not isinstance(rule, Mixup | CutMix):
            continue
        path: KeyPath = ("training", "regularizers", index)
        if rule.name in seen:
            yield Clash((path,), f"'{rule.name}' is already item {seen[rule.name]}; rows are mixed once")
        seen.setdefault(rule.name, index)
        if isinstance(rule, CutMix) and job.task == "regression":
            yield Clash((path, ("task",)), f"'cutmix' mixes labels, and the task is {job.task}; use mixup")
        elif isinstance(rule, CutMix) and isinstance(job.data.source, BreastCancer | Csv | Parquet):
            words = f"'cutmix' is for images, and the source '{job.data.source.name}' is a table; use mixup"
            yield Clash((path, ("data", "source")), words)
        elif isinstance(rule, CutMix) and (flat := [s for s in job.data.preprocess if flattens(s)]):
            words = f"'cutmix' is for images, and '{flat[0].name}' flattens them; use mixup, or whiten with method: zca"
            yield Clash((path, ("data", "preprocess", job.data.preprocess.index(flat[0]))), words)


def early_stopping(job: JobSpec) -> Iterator[Clash]:
    stopping = job.training.early_stopping
    if stopping is not None:
        yield from _watched(job, ("training", "early_stopping"), stopping.metric)


def _watched(job: JobSpec, path: KeyPath, metric: Metric) -> Iterator[Clash]:
    """What a metric on validation rows needs, asked for by the key at ``path``."""
    if job.data.validation in (0, *UNSEEN):
        words = f"needs validation rows, and data.validation is {job.data.validation}; give it a share such as 0.15"
        yield Clash((path, ("data", "validation")), words)
    watched = ("nll",) if job.task == "multitask" else metrics_of(job)
    if metric not in watched:
        known = ", ".join(m for m in ("nll", "accuracy", "rmse") if m in watched)
        words = f"'{metric}' is not a measure of {job.task}; allowed: {known}"
        yield Clash(((*path, "metric"), ("task",)), words)


def averages(job: JobSpec) -> Iterator[Clash]:
    average, path, epochs = job.training.average, ("training", "average"), job.training.epochs
    if isinstance(average, BestN):
        yield from _watched(job, path, average.metric)
    if isinstance(average, Swa) and not average.num_cycles(epochs, epochs):
        left = epochs - average.first_epoch(epochs)
        words = (
            f"{average.every} epochs do not fit into the {left} that are left of training.epochs; give less"
        )
        yield Clash(((*path, "every"), ("training", "epochs")), words)


def measures(job: JobSpec) -> Iterator[Clash]:
    loss, metrics = job.training.loss, job.evaluate.metrics
    if job.task != "multitask" and not isinstance(loss, _LOSSES_OF[job.task]):
        known = ", ".join(kind.model_fields["name"].default for kind in _LOSSES_OF[job.task])
        words = f"'{loss.name}' is not a loss for {job.task}; allowed: {known}"
        yield Clash((("training", "loss"), ("task",)), words)
    for index, metric in enumerate(metrics if isinstance(metrics, tuple) else ()):
        if metric not in metrics_of(job):
            words = f"'{metric}' is not a measure of {job.task}; allowed: {', '.join(metrics_of(job))}"
            yield Clash((("evaluate", "metrics", index), ("task",)), words)


def recipe(job: JobSpec) -> Iterator[Clash]:
    rule, model = job.training.optimizer, job.model
    if isinstance(rule, Sgd) and rule.nesterov and rule.momentum == 0:
        path: KeyPath = ("training", "optimizer")
        yield Clash(
            ((*path, "nesterov"), (*path, "momentum")), "true needs momentum; give momentum, 0.9 for instance"
        )
    if isinstance(model, Network) and model.norm.sees_batch and job.training.batch_size == 1:
        needs = f"'{model.norm.name}' needs at least two rows per step"
        words = f"{needs}, and training.batch_size is 1; use layer or group"
        yield Clash((("model", "norm"), ("training", "batch_size")), words)


def sparsity(job: JobSpec) -> Iterator[Clash]:
    """A penalty on activations: whose are seen, and how."""
    for index, rule in enumerate(job.training.regularizers):
        if not isinstance(rule, Sparsity):
            continue
        path: KeyPath = ("training", "regularizers", index)
        if not isinstance(job.model, Network):
            words = (
                "'sparsity' sees the activations of this service's own networks alone; add yours to your loss"
            )
            yield Clash((path, ("model",)), words)
        elif rule.kind == "kl" and not isinstance(job.model.activation, Sigmoid):
            words = (
                f"'kl' is for outputs between 0 and 1, and those of {job.model.activation.name} leave them; "
            )
            yield Clash(((*path, "kind"), ("model", "activation")), f"{words}use sigmoid, or kind: l1")
        if job.compute.compile == "on":
            words = (
                "'sparsity' reads activations out of the step, which a compiled one keeps; give compile: off"
            )
            yield Clash((path, ("compute", "compile")), words)
        if job.compute.processes(on_gpu=job.compute.device != "cpu") > 1:
            words = (
                "'sparsity' is of the whole batch, which no process of several has; train each member in one"
            )
            yield Clash((path, ("compute", "processes_per_member")), words)


def network(job: JobSpec) -> Iterator[Clash]:
    """What does not go together in a network of the zoo, and with how it is trained."""
    model = job.model
    if not isinstance(model, Network):
        return
    for key, words in unfit(model):
        yield Clash((("model", key), ("model",)), words)
    for index, rule in enumerate(job.training.regularizers):
        if isinstance(rule, MaxNorm) and isinstance(model.norm, WeightNorm):
            words = "'max_norm' bounds the lengths of weights, which model.norm 'weight' learns apart; drop one of them"
            yield Clash((("training", "regularizers", index), ("model", "norm")), words)


def auto_rate(job: JobSpec) -> Iterator[Clash]:
    """The rate is found once, for all members."""
    path: KeyPath = ("training", "optimizer", "lr")
    if job.training.optimizer.lr != "auto":
        return
    varied = [("ensemble", "vary", key) for key in job.ensemble.vary]
    varied += [("search", "space", key) for key in (job.search.space if job.search else ())]
    for section, part, key in varied:
        parts = tuple(key.split("."))
        if parts == path[: len(parts)] or key == "training.optimizer.name":
            given = f"{section}.{part} gives '{escaped(key)}'"
            words = f"'auto' finds one rate for all members, and {given}; use numbers"
            yield Clash((path, (section, part, key)), words)


def schedule(job: JobSpec) -> Iterator[Clash]:
    schedule, path = job.training.schedule, ("training", "schedule")
    match schedule:
        case Cosine() | Linear() if schedule.decay is not None and schedule.floor > 0:
            words = f"{schedule.floor:g} and decay {schedule.decay:g} both say where the rate ends; give one of them"
            yield Clash(((*path, "floor"), (*path, "decay")), words)
        case StepDecay() if schedule.decay is not None and schedule.gamma != StepDecay().gamma:
            words = (
                f"{schedule.gamma:g} follows from decay {schedule.decay:g} and the number of drops; give one"
            )
            yield Clash(((*path, "gamma"), (*path, "decay")), words)
        case StepDecay() if schedule.decay is not None and schedule.every >= job.training.epochs:
            words = (
                f"{schedule.decay:g} is reached by drops, and in {job.training.epochs} epochs there is none"
            )
            remedy = f"'every' is {schedule.every}; lower it"
            paths = ((*path, "decay"), (*path, "every"), ("training", "epochs"))
            yield Clash(paths, f"{words}: {remedy}")
        case Plateau():
            yield from _plateau(job, schedule)
        case _:
            pass


def _plateau(job: JobSpec, schedule: Plateau) -> Iterator[Clash]:
    path: KeyPath = ("training", "schedule", "metric")
    watched = ("nll",) if job.task == "multitask" else metrics_of(job)
    known = [m for m in ("nll", "accuracy", "rmse") if m in watched]
    if schedule.metric not in (*known, "train_loss"):
        words = f"'{schedule.metric}' is not a measure of {job.task}; allowed: {', '.join(known)}, train_loss"
        yield Clash((path, ("task",)), words)
    elif schedule.metric not in ("nll", "train_loss") and job.data.validation in (0, *UNSEEN):
        words = (
            f"'{schedule.metric}' is measured on validation rows, and data.validation is {job.data.validation}; "
            "use train_loss"
        )
        yield Clash((path, ("data", "validation")), words)
