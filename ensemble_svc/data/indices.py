"""Which rows each member trains on, and in what order: functions of (job seed, member, epoch).

Shapes: n training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import assert_never

import numpy as np
import numpy.typing as npt

from ensemble_svc.data.dataset import Array
from ensemble_svc.data.split import Rows, Split
from ensemble_svc.errors import DataError
from ensemble_svc.spec.job import Bootstrap, KFold, NoResample, Resample, Subsample
from ensemble_svc.spec.randomness import Purpose, derive_seed
from ensemble_svc.spec.tasks import JobTask, Task

Columns = Sequence[tuple[Array, Task]]
"""The targets of each task over the whole data set, with its kind."""
MOST_DRAWS = 1000
"""Bags drawn for one member before its data are said to be too small for it."""


def member_rows(
    resample: Resample,
    split: Split,
    y: Array,
    *,
    task: JobTask,
    job_seed: int,
    member: int,
    streamed: bool = False,
    kinds: Sequence[Task] = (),
) -> Rows:
    """Training rows of one member, sorted; a bootstrap bag holds some of them several times.

    A bag that lacks a class (or, in a regression, holds a constant target) is drawn again with the
    next counter, so the result depends on nothing but the arguments.

    Args:
        y: targets of the whole data set.
        streamed: all members read one stream and count its rows as often as they have them. A bootstrap
            bag then holds each row a Poisson(1) number of times, which is what drawing with replacement
            comes to for many rows (Oza & Russell 2001), and its size varies.
        kinds: of several tasks, each one's, in the order of the columns of ``y``.

    Raises:
        DataError: no bag holds all classes, or folds that cannot.
    """
    train = split.train
    columns = _columns(y, task, kinds)
    match resample:
        case NoResample():
            return train
        case Bootstrap():

            def bag(generator: np.random.Generator) -> Rows:
                if streamed:
                    return np.repeat(np.sort(train), generator.poisson(1.0, size=len(train)))
                return np.sort(train[generator.integers(len(train), size=len(train))])

            return _draw(bag, train, columns, job_seed=job_seed, member=member)
        case Subsample():
            size = max(round(resample.fraction * len(train)), 1)

            def part(generator: np.random.Generator) -> Rows:
                return np.sort(train[generator.permutation(len(train))[:size]])

            return _draw(part, train, columns, job_seed=job_seed, member=member)
        case KFold():
            fold = _folds(resample.folds, train, columns, job_seed=job_seed)
            kept = train[fold != member % resample.folds]
            if not _teach(kept, train, columns):
                raise DataError(
                    f"kfold: without fold {member % resample.folds} of {resample.folds} the training rows "
                    "lack a class (or hold one target only). Each class needs at least 2 training rows."
                )
            return kept
        case _:
            assert_never(resample)


def fold_rows(resample: KFold, split: Split, y: Array, *, task: Task, job_seed: int, member: int) -> Rows:
    """Training rows that a member of a k-fold ensemble has not seen, sorted."""
    fold = _folds(resample.folds, split.train, [(y, task)], job_seed=job_seed)
    return split.train[fold == member % resample.folds]


def epoch_order(num_rows: int, *, job_seed: int, member: int, epoch: int) -> npt.NDArray[np.int64]:
    """Order in which a member sees its rows in one epoch, a permutation of 0 … num_rows - 1."""
    return _generator(job_seed, member, "order", epoch).permutation(num_rows)


def _draw(
    draw: Callable[[np.random.Generator], Rows],
    train: Rows,
    columns: Columns,
    *,
    job_seed: int,
    member: int,
) -> Rows:
    for attempt in range(MOST_DRAWS):
        rows = draw(_generator(job_seed, member, "resample", attempt))
        if _teach(rows, train, columns):
            return rows
    raise DataError(
        f"member {member}: {MOST_DRAWS} resamples of the {len(train)} training rows all lack a class (or "
        "hold one target only). Add rows of rare classes, or write 'ensemble.resample: none'."
    )


def _columns(y: Array, task: JobTask, kinds: Sequence[Task]) -> Columns:
    if task != "multitask":
        return [(y, task)]
    each = zip(y.T, kinds, strict=True)
    return [(y_N.astype(np.int64) if kind == "classification" else y_N[:, None], kind) for y_N, kind in each]


def _teach(rows: Rows, train: Rows, columns: Columns) -> bool:
    return all(_teaches(rows, train, y, task) for y, task in columns)


def _teaches(rows: Rows, train: Rows, y: Array, task: Task) -> bool:
    """Whether the rows hold every class of the training split, or targets that vary."""
    if task == "classification":
        present = np.bincount(y[train].astype(np.int64)) > 0
        return bool((np.bincount(y[rows].astype(np.int64), minlength=len(present)) > 0)[present].all())
    targets = y[rows]
    return len(rows) > 0 and bool((targets != targets[:1]).any(axis=0).all())


def _folds(folds: int, train: Rows, columns: Columns, *, job_seed: int) -> npt.NDArray[np.int64]:
    """Fold of each training row; sizes differ by at most one, in all and within each class.

    Of several tasks the classes are those of the first that has any.
    """
    if folds > len(train):
        raise DataError(f"ensemble.resample.folds: {folds}, but there are only {len(train)} training rows.")
    order = _generator(job_seed, -1, "resample").permutation(len(train))
    labels = next((y for y, task in columns if task == "classification"), None)
    if labels is not None:
        order = order[np.argsort(labels[train][order], kind="stable")]
    fold = np.empty(len(train), dtype=np.int64)
    fold[order] = np.arange(len(train)) % folds
    return fold


def _generator(job_seed: int, member: int, purpose: Purpose, *counters: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(derive_seed(job_seed, member, purpose, *counters)))
