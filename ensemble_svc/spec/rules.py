"""Rules between keys, each a generator of the keys that contradict each other and a sentence on why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from math import isfinite
from typing import Any, Final

from ensemble_svc.registry import Choice
from ensemble_svc.spec.activations import Sigmoid
from ensemble_svc.spec.averages import BestN, Swa
from ensemble_svc.spec.clash import Clash as Clash
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.data import (
    UNSEEN,
    BreastCancer,
    Csv,
    Diabetes,
    Digits,
    Fractions,
    Idx,
    ImageFolder,
    Npz,
    Parquet,
    PythonSource,
    Source,
)
from ensemble_svc.spec.decisions import decision_clashes
from ensemble_svc.spec.fitness import unfit
from ensemble_svc.spec.job import JobSpec, Metric, NoResample
from ensemble_svc.spec.losses import AutoLoss, CrossEntropy, GaussianNll, Mse
from ensemble_svc.spec.model import ConvNet, LeNet, Network, PythonModel, ResNet
from ensemble_svc.spec.norms import BatchRenorm, WeightNorm
from ensemble_svc.spec.optimizers import Sgd
from ensemble_svc.spec.preparation import broken_changes, broken_steps, flattens
from ensemble_svc.spec.preprocess import PerChannelCenter
from ensemble_svc.spec.regularizers import CutMix, MaxNorm, Mixup, Sparsity
from ensemble_svc.spec.schedules import Cosine, Linear, Plateau, StepDecay
from ensemble_svc.spec.searchrules import search_clashes
from ensemble_svc.spec.source import escaped
from ensemble_svc.spec.taskrules import task_clashes
from ensemble_svc.spec.tasks import Task
from ensemble_svc.spec.virtual import virtual_clashes
from ensemble_svc.spec.wording import shown

METRICS_OF: Final[dict[Task, tuple[Metric, ...]]] = {
    "classification": (
        *("accuracy", "nll", "brier", "ece", "top5", "ece_adaptive", "ece_classwise", "ece_smooth"),
        *("aurc", "brier_reliability", "brier_resolution"),
    ),
    "regression": (*("nll", "rmse", "mae", "nll_gaussian", "crps", "pinball", "width90", "coverage_gap"),),
}


def metrics_of(job: JobSpec) -> tuple[Metric, ...]:
    """What the answers of a job can be measured by."""
    if job.task != "multitask":
        return METRICS_OF[job.task]
    kinds = {task.kind for task in job.tasks.values()}
    return tuple(dict.fromkeys(m for task, own in METRICS_OF.items() if task in kinds for m in own))


_LOSSES_OF: Final[dict[Task, tuple[type[Choice], ...]]] = {
    "classification": (AutoLoss, CrossEntropy),
    "regression": (AutoLoss, GaussianNll, Mse),
}


def clashes(job: JobSpec) -> Iterator[Clash]:
    """The rules that ``job`` itself breaks, whatever its members vary."""
    for rule in _RULES:
        yield from rule(job)


def _fractions(job: JobSpec) -> Iterator[Clash]:
    validation, test = job.data.validation, job.data.test
    paths = (("data", "validation"), ("data", "test"))
    has_shares = isinstance(job.data.split, Fractions)
    if has_shares and isinstance(validation, float) and isinstance(test, float) and validation + test >= 1:
        yield Clash(paths, f"{validation} and data.test {test} leave no rows to train on; give less")
    for path, split in zip(paths, (validation, test), strict=True):
        if split == "train":
            yield Clash((path,), "'train' is what members are trained on; name another split or a share")
    if isinstance(validation, str) and validation == test:
        yield Clash(paths, f"{shown(validation)} is data.test as well; no row may both select and report")


def _source(job: JobSpec) -> Iterator[Clash]:
    """Data that come with a task of their own."""
    right = _task_of(job.data.source)
    if right and job.task not in (right, "multitask"):
        words = f"the source '{job.data.source.name}' is a {right} set; write 'task: {right}'"
        yield Clash((("task",), ("data", "source")), f"'{job.task}' does not fit: {words}")
    source = job.data.source
    if isinstance(source, Csv | Parquet) and isinstance(source.target, tuple):
        path: KeyPath = ("data", "source", "target")
        if not source.target:
            yield Clash((path,), "[] names no column; a job needs a target")
        elif len(source.target) > 1 and job.task == "classification":
            yield Clash((path, ("task",)), f"{len(source.target)} columns; a classification has one target")


def _task_of(source: Source) -> Task | None:
    match source:
        case Digits() | BreastCancer() | ImageFolder() | Idx():
            return "classification"
        case Diabetes():
            return "regression"
        case Npz() | Csv() | Parquet() | PythonSource():
            return None


def _preprocess(job: JobSpec) -> Iterator[Clash]:
    seen: dict[str, int] = {}
    for index, step in enumerate(job.data.preprocess):
        if step.name in seen:
            words = f"'{step.name}' is already step {seen[step.name]}; twice is once too often"
            yield Clash((("data", "preprocess", index),), words)
        seen.setdefault(step.name, index)
    for paths, words in (*broken_steps(job.data, job.model), *broken_changes(job.data)):
        yield Clash(paths, words)


def _tables(job: JobSpec) -> Iterator[Clash]:
    """What only images have, asked of a table."""
    source = job.data.source
    if not isinstance(source, BreastCancer | Diabetes | Csv | Parquet):
        return
    why = f"is for images, and the source '{source.name}' is a table"
    for index, augment in enumerate(job.data.augment):
        yield Clash((("data", "augment", index), ("data", "source")), f"'{augment.name}' {why}")
    for index, step in enumerate(job.data.preprocess):
        if isinstance(step, PerChannelCenter):
            remedy = "use standardize"
            yield Clash((("data", "preprocess", index), ("data", "source")), f"'{step.name}' {why}; {remedy}")
    if isinstance(job.model, LeNet | ConvNet | ResNet):
        yield Clash((("model",), ("data", "source")), f"'{job.model.name}' {why}; use mlp")


def _mixing(job: JobSpec) -> Iterator[Clash]:
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


def _early_stopping(job: JobSpec) -> Iterator[Clash]:
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


def _averages(job: JobSpec) -> Iterator[Clash]:
    average, path, epochs = job.training.average, ("training", "average"), job.training.epochs
    if isinstance(average, BestN):
        yield from _watched(job, path, average.metric)
    if isinstance(average, Swa) and not average.num_cycles(epochs, epochs):
        left = epochs - average.first_epoch(epochs)
        words = (
            f"{average.every} epochs do not fit into the {left} that are left of training.epochs; give less"
        )
        yield Clash(((*path, "every"), ("training", "epochs")), words)


def _measures(job: JobSpec) -> Iterator[Clash]:
    loss, metrics = job.training.loss, job.evaluate.metrics
    if job.task != "multitask" and not isinstance(loss, _LOSSES_OF[job.task]):
        known = ", ".join(kind.model_fields["name"].default for kind in _LOSSES_OF[job.task])
        words = f"'{loss.name}' is not a loss for {job.task}; allowed: {known}"
        yield Clash((("training", "loss"), ("task",)), words)
    for index, metric in enumerate(metrics if isinstance(metrics, tuple) else ()):
        if metric not in metrics_of(job):
            words = f"'{metric}' is not a measure of {job.task}; allowed: {', '.join(metrics_of(job))}"
            yield Clash((("evaluate", "metrics", index), ("task",)), words)


def _recipe(job: JobSpec) -> Iterator[Clash]:
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


def _sparsity(job: JobSpec) -> Iterator[Clash]:
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


def _network(job: JobSpec) -> Iterator[Clash]:
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


def _auto_rate(job: JobSpec) -> Iterator[Clash]:
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


def _schedule(job: JobSpec) -> Iterator[Clash]:
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


def _stream(job: JobSpec) -> Iterator[Clash]:
    """Batch norm takes its statistics from all rows of a batch, also from those that a member leaves out."""
    normed = isinstance(job.model, Network) and job.model.norm.sees_batch
    if job.data.stream == "on" and normed and not isinstance(job.ensemble.resample, NoResample):
        words = (
            f"'on' with ensemble.resample '{job.ensemble.resample.name}' would let batch norm see the rows that "
            "a member leaves out; use norm: layer or group, or data.stream: off"
        )
        yield Clash((("data", "stream"), ("model", "norm")), words)


def _compute(job: JobSpec) -> Iterator[Clash]:
    share = job.compute.gpus_per_member
    if isinstance(share, float) and share > 0 and job.compute.device == "cpu":
        paths = (("compute", "gpus_per_member"), ("compute", "device"))
        yield Clash(paths, f"{share} GPUs for members that compute.device keeps on the CPU; give 0 or auto")
        return
    yield from islice(_processes(job), 1)


def _processes(job: JobSpec) -> Iterator[Clash]:
    """A member over several processes: its GPUs, that it trains alone, and a row for each of them."""
    compute, key = job.compute, ("compute", "processes_per_member")
    gpus, asked = compute.gpus_per_member, compute.processes_per_member
    gpus_key: KeyPath = ("compute", "gpus_per_member")
    if gpus != "auto" and gpus > 1 and gpus != int(gpus):
        yield Clash((gpus_key,), f"{gpus:g} GPUs cannot be given out; above 1 give a whole number")
    if asked != "auto" and gpus not in ("auto", 0) and asked != max(1, gpus):
        words = f"{asked} on {gpus:g} GPUs, but each process has one GPU of its own; give auto"
        yield Clash((key, gpus_key), words)
    count, cause = compute.processes(on_gpu=compute.device != "cpu"), gpus_key if asked == "auto" else key
    if count > 1 and isinstance(compute.pack, int) and compute.pack > 1:
        words = f"a member over {count} processes trains alone, and compute.pack is {compute.pack}; set it to auto"
        yield Clash((cause, ("compute", "pack")), words)
    if count > 1 and isinstance(job.model, Network) and isinstance(job.model.norm, BatchRenorm):
        words = f"{count} processes cannot share batch renorm's corrections yet; use norm: batch"
        yield Clash((cause, ("model", "norm")), words)
    rows = job.training.batch_size
    if rows != "full" and count > rows:
        words = (
            f"{count} processes share batches of {rows} rows (training.batch_size); each needs at least one"
        )
        yield Clash((cause, ("training", "batch_size")), words)


def _numbers(job: JobSpec) -> Iterator[Clash]:
    """Options whose type is the user's own: no digest, and no file, can hold an infinite number."""
    own: dict[KeyPath, Any] = {("ensemble", "vary"): job.ensemble.vary}
    for key, domain in (job.search.space if job.search else {}).items():
        own["search", "space", key, "choice"] = domain.choice
    if isinstance(job.data.source, PythonSource):
        own["data", "source", "options"] = job.data.source.options
    if isinstance(job.model, PythonModel):
        own["model", "options"] = job.model.options
    for start, value in own.items():
        for path, number in _infinite(value, start):
            yield Clash((path,), f"{shown(number)} is not allowed; must be a finite number")


def _infinite(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, float]]:
    if isinstance(value, float) and not isfinite(value):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _infinite(item, (*path, key))
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value):
            yield from _infinite(item, (*path, index))


_RULES: Final[tuple[Callable[[JobSpec], Iterator[Clash]], ...]] = (
    _fractions,
    _source,
    _preprocess,
    _tables,
    _mixing,
    task_clashes,
    _early_stopping,
    _averages,
    virtual_clashes,
    _measures,
    decision_clashes,
    search_clashes,
    _recipe,
    _network,
    _sparsity,
    _schedule,
    _auto_rate,
    _stream,
    _compute,
    _numbers,
)
