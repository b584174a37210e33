"""Rules of the ``aggregate`` section: what is decided about members needs held-out rows, and a task that it fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, get_args

from ensemble_svc.spec.aggregate import (
    All,
    Greedy,
    Mean,
    NoSoup,
    Score,
    Stacking,
    Temperature,
    Variance,
)
from ensemble_svc.spec.clash import Clash
from ensemble_svc.spec.data import UNSEEN
from ensemble_svc.spec.job import Bootstrap, JobSpec, KFold, Subsample
from ensemble_svc.spec.tasks import JobTask
from ensemble_svc.spec.wording import shown

SCORES: Final[Mapping[JobTask, tuple[Score, ...]]] = {
    "classification": ("nll", "accuracy", "brier"),
    "regression": ("nll", "rmse"),
    "multitask": ("nll",),
}
"""What members of each task can be selected by."""
LIKE_WEIGHTS: Final = ("init", "dropout", "channel_dropout", "activation_noise")
"""Options of a network with which its weights keep their shapes and their meaning."""


def decision_clashes(job: JobSpec) -> Iterator[Clash]:
    """The rules that the job's ``aggregate`` section breaks."""
    yield from _aggregate(job)
    yield from _unseen(job)
    yield from _unseen_rows_decide(job)


def _aggregate(job: JobSpec) -> Iterator[Clash]:
    """What is decided about members is decided on held-out rows, and some of it for classes alone."""
    spec = job.aggregate
    yield from _rowless(job)
    for key, rule in spec.rules:
        is_fitted = job.task == "multitask" and key == "calibrate"  # each task then has what fits it
        if rule.classes_only and not is_fitted and not _has_classes(job):
            what = "regression" if job.task == "regression" else "tasks of which none is one"
            instead = "mean" if key == "combine" else "variance"
            words = f"'{rule.name}' is for classification, not {what}; use {instead}"
            yield Clash((("aggregate", key), ("task",)), words)
    if isinstance(spec.calibrate, Variance) and job.task == "classification":
        yield Clash((("aggregate", "calibrate"), ("task",)), "'variance' is for regression; use temperature")
    if isinstance(spec.combine, Stacking) and not isinstance(spec.select, All):
        words = f"'stacking' gives every member its weight, and select '{spec.select.name}' does too; use one"
        yield Clash((("aggregate", "combine"), ("aggregate", "select")), words)
    yield from _score(job)
    yield from _soup(job)


def _has_classes(job: JobSpec) -> bool:
    """Whether it, or one of its tasks, is a classification."""
    return "classification" in (job.task, *(task.kind for task in job.tasks.values()))


def _soup(job: JobSpec) -> Iterator[Clash]:
    """Weights of several networks have no mean."""
    if isinstance(job.aggregate.soup, NoSoup):
        return
    keys = [("ensemble", "vary", key) for key in job.ensemble.vary]
    keys += [("search", "space", key) for key in (job.search.space if job.search else {})]
    for path in keys:
        section, _, option = path[2].partition(".")
        if section == "model" and option.split(".")[0] not in LIKE_WEIGHTS:
            words = (
                f"'{job.aggregate.soup.name}' averages the weights of one network, and members vary {path[2]}"
            )
            yield Clash((("aggregate", "soup"), path), f"{words}; leave one of them out")


def _rowless(job: JobSpec) -> Iterator[Clash]:
    """What is decided on held-out rows where there are none."""
    spec = job.aggregate
    asked: list[tuple[str, Any, bool]] = [(key, rule.name, rule.needs_rows) for key, rule in spec.rules]
    asked.append(("conformal", spec.conformal, spec.conformal is not None))
    for key, value, needs_rows in asked:
        if needs_rows and job.data.validation == 0:
            words = (
                f"{shown(value)} needs held-out rows, and data.validation is 0; give it a share such as 0.15"
            )
            remedy = (
                ", or oob where members are bagged" if isinstance(job.ensemble.resample, Bootstrap) else ""
            )
            yield Clash((("aggregate", key), ("data", "validation")), words + remedy)


def _score(job: JobSpec) -> Iterator[Clash]:
    """What members are selected by is a measure of the task."""
    score = getattr(job.aggregate.select, "score", "auto")
    if score not in ("auto", *SCORES[job.task]):
        known = ", ".join(["auto", *(m for m in get_args(Score) if m in SCORES[job.task])])
        words = f"'{score}' is not a measure of {job.task}; allowed: {known}"
        yield Clash((("aggregate", "select", "score"), ("task",)), words)


def _unseen(job: JobSpec) -> Iterator[Clash]:
    """Out-of-bag and out-of-fold rows exist where members leave rows out."""
    kind, path, bagged = job.data.validation, ("data", "validation"), job.ensemble.resample
    if kind == "oob" and not isinstance(bagged, Bootstrap | Subsample):
        words = f"'oob' needs members that leave rows out, and ensemble.resample is '{bagged.name}'"
        yield Clash((path, ("ensemble", "resample")), f"{words}; use bootstrap or subsample")
    if kind == "oof" and not isinstance(bagged, KFold):
        words = (
            f"'oof' needs folds, and ensemble.resample is '{bagged.name}'; use kfold, or oob with bootstrap"
        )
        yield Clash((path, ("ensemble", "resample")), words)


def _unseen_rows_decide(job: JobSpec) -> Iterator[Clash]:
    """What training rows, each judged by other members than the next, cannot decide."""
    kind, spec, path = job.data.validation, job.aggregate, ("data", "validation")
    if kind not in UNSEEN:
        return
    why = f"cannot be decided on rows that are {kind}"
    if not isinstance(spec.select, All | Greedy) or (isinstance(spec.select, Greedy) and spec.select.bags):
        words = f"'{spec.select.name}' {why}; use all or greedy without bags, or give data.validation a share"
        yield Clash((("aggregate", "select"), path), words)
    elif isinstance(spec.select, Greedy) and spec.select.score not in ("auto", "nll"):
        yield Clash((("aggregate", "select", "score"), path), f"'{spec.select.score}' {why}; use nll")
    if spec.soup.needs_rows:
        words = f"'{spec.soup.name}' {why}; give data.validation a share"
        yield Clash((("aggregate", "soup"), path), words)
    decides = spec.conformal is not None or spec.calibrate.needs_rows
    if isinstance(spec.combine, Stacking) or (not isinstance(spec.combine, Mean) and decides):
        words = f"'{spec.combine.name}' {why}; use mean, or give data.validation a share"
        yield Clash((("aggregate", "combine"), path), words)
    if isinstance(spec.calibrate, Temperature) and spec.calibrate.when != "after":
        yield Clash((("aggregate", "calibrate", "when"), path), f"'{spec.calibrate.when}' {why}; use after")
