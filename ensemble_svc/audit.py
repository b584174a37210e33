"""The books of an evaluation: what a piece of labelled rows adds, and what all of them come to.

Up to ``HELD_ROWS`` rows the members' predictions are held and everything is measured as at the end of training.
Beyond, only sums are (``evaluate.tally``): metrics and gains with intervals; the metrics that are no mean over rows are
left out.

Shapes: K members, N rows of a piece, C classes, D targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.aggregate.decision import Decision
from ensemble_svc.data.corrupt import CORRUPTIONS, SEVERITIES, corrupt
from ensemble_svc.data.dataset import Dataset, InputSchema
from ensemble_svc.deciding import measure, scored, targets_of
from ensemble_svc.errors import DataError, did_you_mean
from ensemble_svc.evaluate.checks import check_prediction, split_members
from ensemble_svc.evaluate.metrics import applicable
from ensemble_svc.evaluate.summary import tabulate
from ensemble_svc.evaluate.tally import Tally
from ensemble_svc.foreign import Doubts, add_doubts, by_parts
from ensemble_svc.predictor import Ensemble
from ensemble_svc.spec.job import JobSpec, Task
from ensemble_svc.spec.measured import METRICS_OF
from ensemble_svc.spec.randomness import derive_seed

HELD_ROWS, HELD_NUMBERS = 20_000, 1 << 24
"""Rows, and numbers that the members say of them, up to which all are held."""
MOST_SLICES = 100
SHIFTED: Mapping[Task, tuple[str, ...]] = {
    "classification": ("accuracy", "nll", "ece"),
    "regression": ("rmse", "nll"),
}
"""What is measured on worsened images."""


@dataclass(frozen=True)
class Wish:
    """What is asked of a run."""

    data: str | None = None
    """A labelled source, as in a job; None for the run's own test rows."""
    ood: tuple[str, ...] = ()
    """Paths or sources of rows from elsewhere."""
    shift: bool = False
    """Whether to measure on worsened images too."""
    slices: tuple[str, ...] = ()
    """Columns by whose values to measure."""
    strict: bool = False
    """Stop at the first file that cannot be read."""


@dataclass
class Books:
    """What is known of the rows so far."""

    job: JobSpec
    ensemble: Ensemble
    wish: Wish
    best: int | None
    rows: int = 0
    held: list[tuple[dict[str, Tensor], Tensor]] | None = field(default_factory=list)
    numbers: int = 0
    whole: dict[str, Tally] = field(default_factory=dict)
    slices: dict[str, dict[str, dict[str, Tally]]] = field(default_factory=dict)
    """Column → value → task."""
    shifted: dict[tuple[str, int], dict[str, Tally]] = field(default_factory=dict)
    doubts: Doubts = field(default_factory=dict)
    white: float | None = None


def take_in(books: Books, piece: Dataset) -> None:
    """Read a piece into the books.

    Raises:
        DataError: a column to slice by that the rows lack, or of too many values.
    """
    members = books.ensemble.members(piece.x)
    target = torch.from_numpy(np.ascontiguousarray(piece.y))
    books.rows += len(piece)
    books.numbers += sum(value.numel() for value in members.values())
    if books.rows > HELD_ROWS or books.numbers > HELD_NUMBERS:
        books.held = None
    if books.held is not None:
        books.held.append((members, target))
    each = _judged(books, members, target)
    for task, (kind, predictions, own) in each.items():
        names = _names(books.job, kind, predictions[0])
        _tally(books.whole, task, names, predictions, books).add(predictions, own)
    for column in books.wish.slices:
        _slice(books, column, _labels(piece, column, books.ensemble.schema), each)
    if books.wish.ood:
        books.doubts = add_doubts(books.doubts, books.ensemble, members)
    if books.wish.shift:
        _shift(books, piece, target)


Judged = dict[str, tuple[Task, list[dict[str, Tensor]], Tensor]]
"""By task: its kind, the predictions of each member and of the ensemble, the targets."""


def _judged(books: Books, members: Mapping[str, Tensor], target: Tensor) -> Judged:
    job, decision = books.job, books.ensemble.decision
    parts = by_parts(books.ensemble, members)
    if job.task != "multitask":
        return {"": (job.task, _each(job, job.task, decision, parts[""], target), target)}
    own = dict(zip(job.tasks, targets_of(job, target), strict=True))
    return {
        name: (task.kind, _each(job, task.kind, decision, parts[name], own[name]), own[name])
        for name, task in job.tasks.items()
    }


def _each(
    job: JobSpec, kind: Task, decision: Decision, members: Mapping[str, Tensor], target: Tensor
) -> list[dict[str, Tensor]]:
    ones = split_members(kind, members)
    ensemble = scored(decision, members, target, _names(job, kind, ones[0]))
    check_prediction(kind, ensemble, target, who="the ensemble")
    return [*ones, ensemble]


def _names(job: JobSpec, kind: Task, prediction: Mapping[str, Tensor]) -> tuple[str, ...]:
    asked = job.evaluate.metrics
    own = () if asked == "auto" else tuple(name for name in asked if name in METRICS_OF[kind])
    return applicable(kind, prediction, own or "auto")


def _tally(
    tallies: dict[str, Tally],
    task: str,
    names: Sequence[str],
    predictions: Sequence[Mapping[str, Tensor]],
    books: Books,
    **options: Any,
) -> Tally:
    if task not in tallies:
        tallies[task] = Tally(names, len(predictions), bins=books.job.evaluate.bins, **options)
    return tallies[task]


def _labels(piece: Dataset, column: str, schema: InputSchema) -> list[str]:
    if column in piece.columns:
        return [str(value) for value in piece.columns[column].tolist()]
    if column not in schema.features:
        known = [*piece.columns, *schema.features]
        raise DataError(
            f"--slices {column}: the rows have no such column.{did_you_mean(column, known)} "
            f"Columns: {', '.join(known[:30]) or 'none'}."
        )
    codes = piece.x[:, schema.features.index(column)].tolist()
    values = dict(schema.categories).get(column)
    if values is None:
        return [f"{code:g}" for code in codes]
    return ["" if code != code else values[int(code)] if code >= 0 else "(unknown)" for code in codes]


def _slice(books: Books, column: str, labels: Sequence[str], each: Judged) -> None:
    known = books.slices.setdefault(column, {})
    places: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    if len(known.keys() | places.keys()) > MOST_SLICES:
        raise DataError(
            f"--slices {column}: it has more than {MOST_SLICES} values; slice by a column of few."
        )
    for label, at in places.items():
        index = torch.tensor(at)
        tallies = known.setdefault(label, {})
        for task, (kind, predictions, target) in each.items():
            part = [{name: value[index] for name, value in one.items()} for one in predictions]
            names = _names(books.job, kind, part[0])
            _tally(tallies, task, names, part, books, groups=1).add(part, target[index])


def _shift(books: Books, piece: Dataset, target: Tensor) -> None:
    if books.white is None:
        books.white = piece.white
    x = torch.from_numpy(np.ascontiguousarray(piece.x))
    for number, name in enumerate(CORRUPTIONS):
        for severity in SEVERITIES:
            seed = derive_seed(books.job.seed, -1, "noise", books.rows, number, severity)
            worse = corrupt(
                x, name, severity, white=books.white, generator=torch.Generator().manual_seed(seed)
            )
            judged = _judged(books, books.ensemble.members(worse.numpy()), target)
            tallies = books.shifted.setdefault((name, severity), {})
            for task, (kind, predictions, own) in judged.items():
                _tally(tallies, task, SHIFTED[kind], predictions, books, groups=1).add(predictions, own)


def settle(books: Books) -> dict[str, Any]:
    """The numbers of all rows that were taken in, as one split of ``metrics.json``."""
    job, decision = books.job, books.ensemble.decision
    if books.held is not None:
        stacked = {
            name: torch.cat([members[name] for members, _ in books.held], dim=1) for name in books.held[0][0]
        }
        target = torch.cat([target for _, target in books.held])
        found = measure(job, decision, decision.members, stacked, target, best=books.best)
    else:
        seed = derive_seed(job.seed, -1, "bootstrap")
        each = {
            task: tabulate(
                tally.measured(resamples=job.evaluate.resamples, seed=seed),
                len(decision.members),
                rows=tally.rows,
                confidence=job.evaluate.confidence,
                best=books.best,
            )
            for task, tally in books.whole.items()
        }
        first = next(iter(each))
        found = each[""] if "" in each else {**each[first], "task": first, "tasks": each}
    if books.slices:
        found["slices"] = {
            column: [{"value": value, **_points(tallies)} for value, tallies in values.items()]
            for column, values in books.slices.items()
        }
    if books.shifted:
        found["shift"] = [
            {"corruption": name, "severity": severity, **_points(tallies)}
            for (name, severity), tallies in books.shifted.items()
        ]
    return found


def _points(tallies: Mapping[str, Tally]) -> dict[str, Any]:
    """Rows, and metrics of the ensemble and of the mean member; of several tasks by task."""
    each = {task: _point(tally) for task, tally in tallies.items()}
    return each.get("", {"tasks": each})


def _point(tally: Tally) -> dict[str, Any]:
    point = tally.point()
    return {
        "rows": tally.rows,
        "ensemble": {name: values_M[-1].item() for name, values_M in point.items()},
        "mean_member": {name: values_M[:-1].mean().item() for name, values_M in point.items()},
    }
