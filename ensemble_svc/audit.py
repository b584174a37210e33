"""What a piece of labelled rows adds to the books of an evaluation.

Shapes: K members, N rows of a piece, C classes, D targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.aggregate.decision import Decision
from ensemble_svc.books import Books, Tallies, check_slices
from ensemble_svc.data.corrupt import CORRUPTIONS, SEVERITIES, corrupt
from ensemble_svc.data.dataset import Dataset, InputSchema
from ensemble_svc.doubts import by_parts
from ensemble_svc.errors import DataError, did_you_mean
from ensemble_svc.evaluate.checks import check_prediction, split_members
from ensemble_svc.evaluate.metrics import applicable
from ensemble_svc.evaluate.places import row_keys
from ensemble_svc.evaluate.portrayed import Portrayed
from ensemble_svc.evaluate.sample import Sample
from ensemble_svc.evaluate.tally import Tally
from ensemble_svc.familiar import Own
from ensemble_svc.scoring import scored
from ensemble_svc.spec.job import JobSpec, Task
from ensemble_svc.spec.measured import METRICS_OF
from ensemble_svc.spec.randomness import derive_seed
from ensemble_svc.splits import targets_of
from ensemble_svc.spreading import Tell
from ensemble_svc.terms import HELD_NUMBERS, Terms

SHIFTED: Mapping[Task, tuple[str, ...]] = {
    "classification": ("accuracy", "nll", "ece"),
    "regression": ("rmse", "nll"),
}
"""What is measured on worsened images."""
NOISE_ROWS = 32
"""Rows whose noise is drawn together."""


@dataclass(frozen=True)
class Piece:
    """Rows that follow each other in a file."""

    rows: Dataset
    shard: int
    """Number of the file."""
    start: int
    """Place of the first row in it."""
    white: float
    """What a white pixel is in the file."""

    def __len__(self) -> int:
        return len(self.rows)


def audit(
    terms: Terms, rows: Iterable[Dataset], shard: int, tell: Tell, white: float | None = None
) -> Iterator[Books]:
    """The books of one file, once it is read to its end or to its fault.

    Args:
        white: what a white pixel is; the first piece says so when absent.

    Raises:
        DataError: the fault, after the books of the rows before it.
    """
    books = Books()
    try:
        for data in rows:
            white = white or data.white
            take_in(terms, books, Piece(data, shard, books.rows, white))
            tell(books.rows)
    except DataError:
        if books.rows:
            yield _closed(books)
        raise
    yield _closed(books)


def _closed(books: Books) -> Books:
    if books.sample is not None:
        books.sample.close()
    return books


def take_in(terms: Terms, books: Books, piece: Piece) -> None:
    """Read a piece into the books.

    Raises:
        DataError: a column to slice by that the rows lack, or of too many values.
    """
    members = terms.ensemble.members(piece.rows.x, energy=bool(terms.wish.ood))
    target = torch.from_numpy(np.ascontiguousarray(piece.rows.y))
    key_N = row_keys(piece.shard, piece.start, len(piece))
    books.rows += len(piece)
    if isinstance(terms.own, Own):
        trained, chosen = terms.own.count(piece.rows)
        books.trained, books.chosen = books.trained + trained, books.chosen + chosen
    _hold(terms, books, piece, members, target)
    each = _judged(terms, members, target)
    for task, judged in each.items():
        _tally(terms, books.whole, task, judged, key_N)
        if judged.kind == "classification":
            log_probs_NC = judged.predictions[-1]["log_probs"]
            bins = terms.job.evaluate.bins
            portrait = books.portraits.setdefault(task, Portrayed(log_probs_NC.shape[1], bins=bins))
            portrait.add(log_probs_NC, judged.target)
    for column in terms.wish.slices:
        _slice(terms, books, column, _labels(piece.rows, column, terms.ensemble.schema), each)
    if terms.wish.ood:
        books.doubts.add(terms.ensemble, members)
    if terms.wish.shift:
        _shift(terms, books, piece, target)
    books.bound()


def _hold(terms: Terms, books: Books, piece: Piece, members: Mapping[str, Tensor], target: Tensor) -> None:
    if books.sample is None:
        seed = derive_seed(terms.job.seed, -1, "sample")
        books.sample = Sample(terms.wish.held, HELD_NUMBERS, seed=seed)
    said = {name: value for name, value in members.items() if value.ndim == 3}
    books.sample.offer(said, target, shard=piece.shard, start=piece.start)


@dataclass(frozen=True)
class Judged:
    """One task of a piece."""

    kind: Task
    predictions: list[dict[str, Tensor]]
    """Of each member, then of the ensemble."""
    target: Tensor

    def at(self, index: Tensor) -> Judged:
        """Some of the rows, by position."""
        part = [{name: value[index] for name, value in one.items()} for one in self.predictions]
        return Judged(self.kind, part, self.target[index])


def _judged(terms: Terms, members: Mapping[str, Tensor], target: Tensor) -> dict[str, Judged]:
    job, decision = terms.job, terms.ensemble.decision
    parts = by_parts(terms.ensemble, members)
    if job.task != "multitask":
        return {"": _each(job, job.task, decision, parts[""], target)}
    own = dict(zip(job.tasks, targets_of(job, target), strict=True))
    return {
        name: _each(job, task.kind, decision.of(name), parts[name], own[name])
        for name, task in job.tasks.items()
    }


def _each(
    job: JobSpec, kind: Task, decision: Decision, members: Mapping[str, Tensor], target: Tensor
) -> Judged:
    ones = split_members(kind, members)
    ensemble = scored(decision, members, target, _names(job, kind, ones[0]))
    check_prediction(kind, ensemble, target, who="the ensemble")
    return Judged(kind, [*ones, ensemble], target)


def _names(job: JobSpec, kind: Task, prediction: Mapping[str, Tensor]) -> tuple[str, ...]:
    asked = job.evaluate.metrics
    own = () if asked == "auto" else tuple(name for name in asked if name in METRICS_OF[kind])
    return applicable(kind, prediction, own or "auto")


def _tally(
    terms: Terms,
    tallies: Tallies,
    task: str,
    judged: Judged,
    key_N: Tensor,
    *,
    names: Sequence[str] | None = None,
    **options: Any,
) -> None:
    if task not in tallies:
        names = names or _names(terms.job, judged.kind, judged.predictions[0])
        tallies[task] = Tally(names, len(judged.predictions), bins=terms.job.evaluate.bins, **options)
    tallies[task].add(judged.predictions, judged.target, key_N)


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


def _slice(
    terms: Terms, books: Books, column: str, labels: Sequence[str], each: Mapping[str, Judged]
) -> None:
    known = books.slices.setdefault(column, {})
    places: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    check_slices(column, len(known.keys() | places.keys()))
    for label, at in places.items():
        index = torch.tensor(at)
        for task, judged in each.items():
            _tally(terms, known.setdefault(label, {}), task, judged.at(index), index, groups=1)


def _shift(terms: Terms, books: Books, piece: Piece, target: Tensor) -> None:
    x = torch.from_numpy(np.ascontiguousarray(piece.rows.x))
    key_N = torch.arange(len(target))
    for number, name in enumerate(CORRUPTIONS):
        for severity in SEVERITIES:
            draw = partial(_normals, terms.job.seed, (piece.shard, number, severity), piece.start)
            worse = corrupt(x, name, severity, white=piece.white, draw=draw)
            tallies = books.shifted.setdefault((name, severity), {})
            for task, judged in _judged(terms, terms.ensemble.members(worse.numpy()), target).items():
                _tally(terms, tallies, task, judged, key_N, names=SHIFTED[judged.kind], groups=1)


def _normals(seed: int, place: tuple[int, ...], start: int, shape: torch.Size) -> Tensor:
    """Normal numbers of the rows from ``start`` on, the same however the rows are cut: whole blocks are drawn."""
    first, beyond = start // NOISE_ROWS, -(-(start + shape[0]) // NOISE_ROWS)
    blocks = [
        torch.randn(
            (NOISE_ROWS, *shape[1:]),
            generator=torch.Generator().manual_seed(derive_seed(seed, -1, "noise", *place, block)),
        )
        for block in range(first, beyond)
    ]
    return torch.cat(blocks)[start - first * NOISE_ROWS :][: shape[0]]
