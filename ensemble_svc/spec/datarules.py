"""Rules of the ``data`` section: rows that exist, and what is done to them."""

from __future__ import annotations

from collections.abc import Iterator

from ensemble_svc.spec.clash import Clash as Clash
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
    PythonSource,
    Source,
)
from ensemble_svc.spec.job import JobSpec, NoResample
from ensemble_svc.spec.model import ConvNet, LeNet, Network, ResNet
from ensemble_svc.spec.preparation import broken_changes, broken_steps
from ensemble_svc.spec.preprocess import PerChannelCenter
from ensemble_svc.spec.tasks import Task
from ensemble_svc.spec.wording import shown


def fractions(job: JobSpec) -> Iterator[Clash]:
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


def source(job: JobSpec) -> Iterator[Clash]:
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


def preprocess(job: JobSpec) -> Iterator[Clash]:
    seen: dict[str, int] = {}
    for index, step in enumerate(job.data.preprocess):
        if step.name in seen:
            words = f"'{step.name}' is already step {seen[step.name]}; twice is once too often"
            yield Clash((("data", "preprocess", index),), words)
        seen.setdefault(step.name, index)
    for paths, words in (*broken_steps(job.data, job.model), *broken_changes(job.data)):
        yield Clash(paths, words)


def tables(job: JobSpec) -> Iterator[Clash]:
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


def stream(job: JobSpec) -> Iterator[Clash]:
    """Batch norm takes its statistics from all rows of a batch, also from those that a member leaves out."""
    normed = isinstance(job.model, Network) and job.model.norm.sees_batch
    if job.data.stream == "on" and normed and not isinstance(job.ensemble.resample, NoResample):
        words = (
            f"'on' with ensemble.resample '{job.ensemble.resample.name}' would let batch norm see the rows that "
            "a member leaves out; use norm: layer or group, or data.stream: off"
        )
        yield Clash((("data", "stream"), ("model", "norm")), words)
