"""A finished ensemble on labelled rows: new ones or its own test rows, and against rows from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ensemble_svc.ahead import ahead
from ensemble_svc.audit import audit
from ensemble_svc.books import Books
from ensemble_svc.data.conform import conform
from ensemble_svc.data.inputs import piece_rows
from ensemble_svc.data.streams import Labels, check_labels, cut, shards_of, stream_labelled
from ensemble_svc.deciding import best_on_validation
from ensemble_svc.errors import DataError
from ensemble_svc.familiar import Own, own_rows
from ensemble_svc.foreign import (
    Tell,
    detections,
    foreign_doubts,
    foreign_rows,
    imputes,
    usual_doubts,
)
from ensemble_svc.predictor import Ensemble
from ensemble_svc.rereading import own_data
from ensemble_svc.settling import settle
from ensemble_svc.spec.data import Source
from ensemble_svc.spec.load import parse_source
from ensemble_svc.spec.tasks import kinds
from ensemble_svc.spreading import Spread, in_turn, no_rows
from ensemble_svc.store.members import candidates
from ensemble_svc.store.run import Run
from ensemble_svc.terms import Terms, Wish

__all__ = ["Evaluated", "Wish", "evaluate"]


@dataclass(frozen=True)
class Evaluated:
    """What was measured, and what could not be read."""

    metrics: dict[str, Any]
    """As ``metrics.json``: by split; that of new data is ``data``."""
    broken: tuple[str, ...] = ()


def evaluate(
    run: Run,
    wish: Wish,
    directory: Path,
    *,
    tell: Tell = lambda rows: None,
    spread: Spread = in_turn,
) -> Evaluated:
    """Measure the run's ensemble as wished.

    Args:
        directory: where relative paths start.
        spread: does the files of labelled rows, where there are several.
        tell: hears how many rows were read.

    Raises:
        SpecError: a source that no job could name.
        DataError: rows that the ensemble cannot read: of the only file, or with ``strict``.
        StoreError: a run that is not finished.
    """
    stored = wish.data is None and not (wish.shift or wish.slices)
    if stored and not wish.ood:
        return Evaluated(run.metrics())
    split = "test" if wish.data is None else "data"
    if stored:
        terms = terms_of(run.path, wish)
        usual = usual_doubts(run, terms.ensemble, own_data(run))
        metrics, broken = run.metrics(), list[str]()
    else:
        terms, books, broken = _books(run, wish, directory, spread, tell)
        best = _best(run, terms.ensemble)
        selected = len(terms.ensemble.decision.members) < len(run.manifest()["candidates"])
        metrics = {split: settle(terms, books, best=best, selected=selected)}
        usual = books.doubts
    job, ensemble = terms.job, terms.ensemble
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


def terms_of(path: Path, wish: Wish, own: Own | str | None = None) -> Terms:
    """What the run's rows are measured with.

    Args:
        own: the run's own rows, where they are known.

    Raises:
        StoreError: a run that is not finished.
        DataError: a wish that the ensemble cannot grant.
    """
    run = Run.open(path)
    terms = Terms(run.job(), Ensemble.load(path), wish, own)
    if wish.shift and terms.ensemble.schema.kind != "image":
        raise DataError("--shift worsens images, and the ensemble reads a table.")
    return terms


def _books(
    run: Run, wish: Wish, directory: Path, spread: Spread, tell: Tell
) -> tuple[Terms, Books, list[str]]:
    """The books of all rows, and what could not be read."""
    terms, books, broken = terms_of(run.path, wish), Books(), list[str]()
    if wish.data is None:
        for one in _own_rows(terms, run, tell):
            books.join(one)
        return terms, books, broken
    terms = replace(terms, own=own_rows(run, terms.ensemble.schema))
    shards = shards_of(parse_source(wish.data), directory)
    several = len(shards) > 1
    load = partial(terms_of, run.path.absolute(), wish, terms.own) if several else lambda: terms
    work = partial(audit_shard, directory.absolute())
    with closing((spread if several else in_turn)(load, work, shards, tell=tell)) as found:
        for _, each in found:
            if not isinstance(each, DataError):
                books.join(each)
            elif wish.strict or not several:
                raise each
            else:
                broken.append(str(each))
    if not books.rows:
        raise DataError(no_rows(broken, wish.data))
    check_labels(books.zero_based, terms.ensemble.schema)
    return terms, books, broken


def _own_rows(terms: Terms, run: Run, tell: Tell) -> Iterator[Books]:
    """The books of the run's own test rows.

    Raises:
        DataError: a source that is gone, or holds other rows than the members were trained on.
    """
    prepared, schema = own_data(run), terms.ensemble.schema
    if isinstance(prepared, str):
        raise DataError(
            f"{run.path}: {prepared}; its test rows cannot be measured anew. Name rows with --data."
        )
    own = conform(prepared.dataset, schema, missing=imputes(terms.job))
    return audit(terms, cut(own, piece_rows(schema), prepared.split.test), 0, tell, own.white)


def audit_shard(directory: Path, terms: Terms, number: int, source: Source, tell: Tell) -> Iterator[Books]:
    """The books of one file of labelled rows; it may have none.

    Raises:
        DataError: rows that the ensemble cannot read, after the books of those before.
    """
    job, labels = terms.job, Labels()
    rows = stream_labelled(
        source,
        terms.ensemble.schema,
        task=job.task,
        kinds=kinds(job.tasks),
        directory=directory,
        aside=terms.wish.slices,
        missing=imputes(job),
        labels=labels,
    )
    for books in audit(terms, ahead(rows), number, tell):
        books.zero_based = labels.zero_based
        yield books
