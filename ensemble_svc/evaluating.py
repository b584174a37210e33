"""A finished ensemble on labelled rows: new ones or its own test rows, and against rows from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble_svc.audit import Books, Wish, settle, take_in
from ensemble_svc.data.conform import conform
from ensemble_svc.data.dataset import Dataset
from ensemble_svc.data.inputs import piece_rows
from ensemble_svc.data.streams import cut, shards_of, stream_labelled
from ensemble_svc.deciding import best_on_validation
from ensemble_svc.errors import DataError
from ensemble_svc.foreign import (
    Tell,
    detections,
    foreign_doubts,
    foreign_rows,
    imputes,
    stored_doubts,
)
from ensemble_svc.planning import prepare
from ensemble_svc.predictor import Ensemble
from ensemble_svc.spec.data import Source
from ensemble_svc.spec.load import parse_source
from ensemble_svc.spec.tasks import kinds
from ensemble_svc.store.members import candidates
from ensemble_svc.store.run import Run

__all__ = ["Evaluated", "Wish", "evaluate"]


@dataclass(frozen=True)
class Evaluated:
    """What was measured, and what could not be read."""

    metrics: dict[str, Any]
    """As ``metrics.json``: by split; that of new data is ``data``."""
    broken: tuple[str, ...] = ()


def evaluate(run: Run, wish: Wish, directory: Path, *, tell: Tell = lambda rows: None) -> Evaluated:
    """Measure the run's ensemble as wished.

    Args:
        directory: where relative paths start.
        tell: hears how many rows were read.

    Raises:
        SpecError: a source that no job could name.
        DataError: rows that the ensemble cannot read: of the only file, or with ``strict``.
        StoreError: a run that is not finished.
    """
    stored = wish.data is None and not (wish.shift or wish.slices)
    if stored and not wish.ood:
        return Evaluated(run.metrics())
    job, ensemble = run.job(), Ensemble.load(run.path)
    split, broken = "test" if wish.data is None else "data", list[str]()
    if stored:
        metrics, usual = run.metrics(), stored_doubts(run, ensemble)
    else:
        books = Books(job, ensemble, wish, _best(run, ensemble))
        _check_wish(books)
        for piece in _pieces(books, directory, broken):
            take_in(books, piece)
            tell(books.rows)
        if not books.rows:
            raise DataError("not one row could be read:\n  " + "\n  ".join(broken))
        metrics, usual = {split: settle(books)}, books.doubts
    elsewhere = {
        text: detections(
            usual, foreign_doubts(ensemble, foreign_rows(text, ensemble.schema, job, directory), tell)
        )
        for text in wish.ood
    }
    if elsewhere:
        metrics[split] = {**metrics[split], "ood": elsewhere}
    return Evaluated(metrics, tuple(broken))


def _best(run: Run, ensemble: Ensemble) -> int | None:
    metrics = {own: m for entry in run.manifest()["members"] for own, m in candidates(entry).items()}
    return best_on_validation(run.job(), [metrics[own] for own in ensemble.decision.members])


def _check_wish(books: Books) -> None:
    if books.wish.shift and books.ensemble.schema.kind != "image":
        raise DataError("--shift worsens images, and the ensemble reads a table.")


def _pieces(books: Books, directory: Path, broken: list[str]) -> Iterator[Dataset]:
    """The labelled rows; what cannot be read of several files is added to ``broken``."""
    wish, job, schema = books.wish, books.job, books.ensemble.schema
    if wish.data is None:
        prepared = prepare(job, directory)
        own = conform(prepared.dataset, schema, missing=imputes(job))
        books.white = own.white
        yield from cut(own, piece_rows(schema), prepared.split.test)
        return
    shards = shards_of(parse_source(wish.data), directory)
    for shard in shards:
        try:
            yield from _labelled(shard, books, directory)
        except DataError as fault:
            if wish.strict or len(shards) == 1:
                raise
            broken.append(str(fault))


def _labelled(source: Source, books: Books, directory: Path) -> Iterator[Dataset]:
    job, schema = books.job, books.ensemble.schema
    return stream_labelled(
        source,
        schema,
        task=job.task,
        kinds=kinds(job.tasks),
        directory=directory,
        aside=books.wish.slices,
        missing=imputes(job),
    )
