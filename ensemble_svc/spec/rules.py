"""Rules between keys, each a generator of the keys that contradict each other and a sentence on why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from typing import Any, Final

from ensemble_svc.registry import Choice
from ensemble_svc.spec.averages import BestN, Swa
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.data import (
    BreastCancer,
    Csv,
    Diabetes,
    Digits,
    Fractions,
    Idx,
    ImageFolder,
    Npz,
    Parquet,
    PerChannelCenter,
    PythonSource,
    Source,
)
from ensemble_svc.spec.job import JobSpec, Metric, NoResample, Task
from ensemble_svc.spec.losses import AutoLoss, CrossEntropy, GaussianNll, Mse
from ensemble_svc.spec.model import ConvNet, LeNet, Network, PythonModel, ResNet
from ensemble_svc.spec.optimizers import Sgd
from ensemble_svc.spec.wording import shown

METRICS_OF: Final[dict[Task, tuple[Metric, ...]]] = {
    "classification": ("accuracy", "nll", "brier", "ece"),
    "regression": ("nll", "rmse", "mae", "nll_gaussian"),
}
_LOSSES_OF: Final[dict[Task, tuple[type[Choice], ...]]] = {
    "classification": (AutoLoss, CrossEntropy),
    "regression": (AutoLoss, GaussianNll, Mse),
}


@dataclass(frozen=True)
class Clash:
    """Keys that cannot both stand; the message is told at the first."""

    paths: tuple[KeyPath, ...]
    message: str


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
    if right and right != job.task:
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


def _early_stopping(job: JobSpec) -> Iterator[Clash]:
    stopping = job.training.early_stopping
    if stopping is not None:
        yield from _watched(job, ("training", "early_stopping"), stopping.metric)


def _watched(job: JobSpec, path: KeyPath, metric: Metric) -> Iterator[Clash]:
    """What a metric on validation rows needs, asked for by the key at ``path``."""
    if job.data.validation == 0:
        words = "needs validation rows, and data.validation is 0; give it a share such as 0.15"
        yield Clash((path, ("data", "validation")), words)
    if metric not in METRICS_OF[job.task]:
        known = ", ".join(m for m in ("nll", "accuracy", "rmse") if m in METRICS_OF[job.task])
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
    if not isinstance(loss, _LOSSES_OF[job.task]):
        known = ", ".join(kind.model_fields["name"].default for kind in _LOSSES_OF[job.task])
        words = f"'{loss.name}' is not a loss for {job.task}; allowed: {known}"
        yield Clash((("training", "loss"), ("task",)), words)
    for index, metric in enumerate(metrics if isinstance(metrics, tuple) else ()):
        if metric not in METRICS_OF[job.task]:
            words = f"'{metric}' is not a measure of {job.task}; allowed: {', '.join(METRICS_OF[job.task])}"
            yield Clash((("evaluate", "metrics", index), ("task",)), words)


def _recipe(job: JobSpec) -> Iterator[Clash]:
    rule, model = job.training.optimizer, job.model
    if isinstance(rule, Sgd) and rule.nesterov and rule.momentum == 0:
        path: KeyPath = ("training", "optimizer")
        yield Clash(
            ((*path, "nesterov"), (*path, "momentum")), "true needs momentum; give momentum, 0.9 for instance"
        )
    if isinstance(model, Network) and model.norm == "batch" and job.training.batch_size == 1:
        words = "'batch' needs at least two rows per step, and training.batch_size is 1; use layer or group"
        yield Clash((("model", "norm"), ("training", "batch_size")), words)


def _stream(job: JobSpec) -> Iterator[Clash]:
    """Batch norm takes its statistics from all rows of a batch, also from those that a member leaves out."""
    normed = isinstance(job.model, Network) and job.model.norm == "batch"
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
    rows = job.training.batch_size
    if rows != "full" and count > rows:
        words = (
            f"{count} processes share batches of {rows} rows (training.batch_size); each needs at least one"
        )
        yield Clash((cause, ("training", "batch_size")), words)


def _numbers(job: JobSpec) -> Iterator[Clash]:
    """Options whose type is the user's own: no digest, and no file, can hold an infinite number."""
    own: dict[KeyPath, Any] = {("ensemble", "vary"): job.ensemble.vary}
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
    _early_stopping,
    _averages,
    _measures,
    _recipe,
    _stream,
    _compute,
    _numbers,
)
