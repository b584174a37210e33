"""An ensemble of very many members on very many rows, measured from its file without holding what the members say.

The rows of all members are read and combined a piece at a time, by as many threads as there are cores; what is held is
the ensemble's own prediction, a few sums of each member, and a piece for each thread. So memory does not grow with the
members, and with the rows as one member's prediction does. It is for whoever has such a file: ``conclude`` and the
commands hold what the members say.

Shapes: K members, N rows, C classes, n rows of a piece.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ensemble_svc.aggregate.streaming import average_fast
from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.checks import check_prediction, check_targets
from ensemble_svc.evaluate.crowd import Sums, member_metrics, member_sums
from ensemble_svc.evaluate.metrics import METRICS, Names, applicable
from ensemble_svc.evaluate.summary import describe
from ensemble_svc.store.slices import PIECE_BYTES, Place, cuts, places, read_rows

LOG_PROBS = "log_probs"
ROWS = 1 << 16
"""Measured together, where a metric allows it."""
Found = TypeVar("Found")


def measure_streamed(
    path: Path,
    target_N: Tensor,
    *,
    weights_K: Tensor | None = None,
    names: Names = "auto",
    bins: int = 15,
    threads: int | None = None,
    piece_bytes: int = PIECE_BYTES,
) -> dict[str, Any]:
    """Metrics of the mixture, and the usual ones of each member, of a file of class probabilities.

    Args:
        path: tensor file with float32 ``log_probs`` [K, N, C].
        target_N: class numbers.
        weights_K: non-negative, sum 1; equal when absent.
        names: metrics of the ensemble.
        threads: that read and compute; as many as suit the cores when absent.
        piece_bytes: of a piece, about.

    Returns:
        ``{"ensemble": {metric: value}, "members": as ``summarize`` describes them, "rows": N}``.

    Raises:
        CorruptArtifact: no tensor file.
        EnsembleError: a file without such predictions, members or weights that cannot be combined, targets that are
            not theirs.
    """
    log_probs_NC, members = combine_streamed(
        path, target_N, weights_K=weights_K, bins=bins, threads=threads, piece_bytes=piece_bytes
    )
    ensemble = {LOG_PROBS: log_probs_NC}
    check_prediction("classification", ensemble, target_N, who="the ensemble")
    chosen = applicable("classification", ensemble, names)
    return {
        "ensemble": {name: _value(name, log_probs_NC, target_N, bins) for name in chosen},
        "members": describe(members),
        "rows": len(target_N),
    }


def combine_streamed(
    path: Path,
    target_N: Tensor,
    *,
    weights_K: Tensor | None = None,
    bins: int = 15,
    threads: int | None = None,
    piece_bytes: int = PIECE_BYTES,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The mixture's log probabilities [N, C] float32, and each member's usual metrics [K]; as ``measure_streamed``."""
    known = places(path)
    num_rows, num_classes = _checked(path, known, target_N)
    mixed_NC = torch.empty(num_rows, num_classes, dtype=torch.float32)

    def work(rows: slice) -> Sums:
        return _piece(path, known, rows, mixed_NC, target_N[rows].long(), weights_K, bins)

    rows = cuts(known[LOG_PROBS], piece_bytes=piece_bytes)
    number = threads or 2 * _cores()  # while some wait for the disk, others compute
    return mixed_NC, member_metrics(_side_by_side([partial(work, some) for some in rows], number))


def _checked(path: Path, known: dict[str, Place], target_N: Tensor) -> tuple[int, int]:
    """Rows and classes of the file, once its tensor and the targets are what they must be."""
    place = known.get(LOG_PROBS)
    if place is None or len(place.shape) != 3 or place.dtype != torch.float32:
        found = ", ".join(f"{name} {one.dtype} {list(one.shape)}" for name, one in known.items()) or "nothing"
        raise EnsembleError(f"{path} holds {found}; float32 {LOG_PROBS} [members, rows, classes] is needed.")
    if 0 in place.shape:
        raise EnsembleError(
            f"{path} has {LOG_PROBS} of shape {list(place.shape)}: there is nothing to measure."
        )
    _, num_rows, num_classes = place.shape
    check_targets(target_N, num_classes, num_rows=num_rows)
    return num_rows, num_classes


def _piece(
    path: Path,
    known: dict[str, Place],
    rows: slice,
    mixed_NC: Tensor,
    target_n: Tensor,
    weights_K: Tensor | None,
    bins: int,
) -> Sums:
    log_probs_KnC = read_rows(path, known, [LOG_PROBS], rows)[LOG_PROBS]
    mixed_NC[rows], probs_KnC = average_fast(log_probs_KnC, weights_K)
    return member_sums(log_probs_KnC, probs_KnC, target_n, bins=bins)


def _side_by_side(calls: Sequence[Callable[[], Found]], threads: int | None) -> list[Found]:
    """What each call gives, in order; each thread computes by itself, for pieces are too small to be shared."""
    number, before = threads or _cores(), torch.get_num_threads()
    try:
        with ThreadPoolExecutor(number, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(lambda call: call(), calls))
    finally:  # what a thread sets, threads that begin later have too
        torch.set_num_threads(before)


def _value(name: str, log_probs_NC: Tensor, target_N: Tensor, bins: int) -> float:
    """A metric; one that is a function of means over rows takes some rows at a time."""
    metric = METRICS[name]
    if metric.whole is not None:
        return metric.value({LOG_PROBS: log_probs_NC}, target_N, bins)
    parts = zip(log_probs_NC.split(ROWS), target_N.split(ROWS), strict=True)
    sums = [metric.statistics({LOG_PROBS: some}, own, bins).sum(dim=0) for some, own in parts]
    return metric.finish(torch.stack(sums).sum(dim=0) / len(target_N)).item()


def _cores() -> int:
    return len(os.sched_getaffinity(0))
