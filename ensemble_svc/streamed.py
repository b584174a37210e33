"""An ensemble of very many members on very many rows, measured from its file without holding what the members say.

The rows of all members are read and combined a piece at a time, by as many threads as there are cores; what is held is
the ensemble's own prediction, a few sums of each member, and a piece for each thread. So memory does not grow with the
members, and with the rows as one member's prediction does. It is for whoever has such a file;
the commands look at the pages of theirs (``store.mapped``) and tell intervals, size curves and diversity too.

Shapes: K members, N rows, C classes, n rows of a piece.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.aggregate.checks import member_weights
from ensemble_svc.aggregate.predictions import average
from ensemble_svc.aggregate.streaming import Mixture, check_totals
from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.checks import check_prediction, check_targets
from ensemble_svc.evaluate.crowd import Crowd, Sums, member_metrics
from ensemble_svc.evaluate.metrics import METRICS, Names, applicable
from ensemble_svc.evaluate.summary import describe
from ensemble_svc.store.slices import Place, Slices, cuts, places, read_rows

LOG_PROBS = "log_probs"
ROWS = 1 << 16
"""Measured together, where a metric allows it."""
TOGETHER_BYTES = 1 << 20
"""Of one member, worked on together: few enough that what is made of them is still in the processor's cache when it is
next looked at, and enough that the calls cost little beside what they do."""
Found = TypeVar("Found")


def measure_streamed(
    path: Path,
    target_N: Tensor,
    *,
    weights_K: Tensor | None = None,
    names: Names = "auto",
    bins: int = 15,
    threads: int | None = None,
    piece_bytes: int = TOGETHER_BYTES,
) -> dict[str, Any]:
    """Metrics of the mixture, and the usual ones of each member, of a file of class probabilities.

    Args:
        path: tensor file with float32 ``log_probs`` [K, N, C].
        target_N: class numbers.
        weights_K: non-negative, sum 1; equal when absent.
        names: metrics of the ensemble.
        threads: that read and compute; as many as suit the cores when absent.
        piece_bytes: of one member, read at once, about.

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
    chosen = tuple(applicable("classification", ensemble, names))
    calls = [partial(_value, name, log_probs_NC, target_N, bins) for name in chosen]
    return {
        "ensemble": dict(zip(chosen, _side_by_side(calls, threads or _cores()), strict=True)),
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
    piece_bytes: int = TOGETHER_BYTES,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The mixture's log probabilities [N, C] float32, and each member's usual metrics [K]; as ``measure_streamed``."""
    known = places(path)
    num_members, num_rows, num_classes = _checked(path, known, target_N)
    shares = member_weights(weights_K, num_members)
    rows = cuts(known[LOG_PROBS], piece_bytes=piece_bytes, members=1)
    mixed_NC = torch.empty(num_rows, num_classes, dtype=torch.float32)
    number = min(len(rows), threads or 2 * _cores())  # while some wait for the disk, others compute
    desks: SimpleQueue[_Desk] = SimpleQueue()
    for _ in range(number):
        desks.put(_Desk(path, known, shares, rows[0].stop, bins))

    def work(some: slice) -> Sums:
        desk = desks.get()
        try:
            return desk.work(some, target_N[some], mixed_NC[some])
        finally:
            desks.put(desk)

    return mixed_NC, member_metrics(_side_by_side([partial(work, some) for some in rows], number))


class _Desk:
    """What one thread works with: memory for some rows of one member, and of what is made of them."""

    def __init__(
        self, path: Path, known: dict[str, Place], shares: list[float], most_rows: int, bins: int
    ) -> None:
        self._path, self._known, self._shares = path, known, shares
        num_classes = known[LOG_PROBS].shape[2]
        self._log_probs, self._probs = torch.empty(2, most_rows, num_classes)
        self._crowd = Crowd(len(shares), num_classes, most_rows, bins=bins)
        self._mixture = Mixture(shares, num_classes, most_rows)

    def work(self, rows: slice, target_n: Tensor, mixed_nC: Tensor) -> Sums:
        """Combine some rows of all members into ``mixed_nC``, and score each member on them."""
        log_probs_nC, probs_nC = self._log_probs[: len(target_n)], self._probs[: len(target_n)]
        log_probs, probs = log_probs_nC.numpy(), probs_nC.numpy()
        self._crowd.begin(target_n)
        self._mixture.begin(len(target_n))
        with Slices(self._path, self._known) as file, np.errstate(all="ignore"):
            for k in range(len(self._shares)):
                file.read(LOG_PROBS, k, rows, log_probs_nC)
                np.exp(log_probs, out=probs)
                totals_n = self._crowd.score(k, log_probs_nC, probs_nC)
                check_totals(totals_n, member=k, first_row=rows.start)
                self._mixture.add(probs_nC)
        if len(tiny_M := self._mixture.log(mixed_nC)):
            self._exactly(tiny_M, mixed_nC, rows.start)
        return self._crowd.sums()

    def _exactly(self, tiny_M: Tensor, mixed_nC: Tensor, first_row: int) -> None:
        """Combine some of the rows in float64; they are read again, a piece of all members at a time."""
        place, weights_K = self._known[LOG_PROBS], torch.tensor(self._shares, dtype=torch.float64)
        for some in cuts(replace(place, shape=(place.shape[0], *mixed_nC.shape))):
            mine_m = tiny_M[(tiny_M >= some.start) & (tiny_M < some.stop)]
            if len(mine_m):
                rows = slice(first_row + some.start, first_row + some.stop)
                log_probs_KnC = read_rows(self._path, self._known, [LOG_PROBS], rows)[LOG_PROBS]
                mixed_nC[mine_m] = average(log_probs_KnC[:, mine_m - some.start], weights_K)


def _checked(path: Path, known: dict[str, Place], target_N: Tensor) -> tuple[int, int, int]:
    """Members, rows and classes of the file, once its tensor and the targets are what they must be."""
    place = known.get(LOG_PROBS)
    if place is None or len(place.shape) != 3 or place.dtype != torch.float32:
        found = ", ".join(f"{name} {one.dtype} {list(one.shape)}" for name, one in known.items()) or "nothing"
        raise EnsembleError(f"{path} holds {found}; float32 {LOG_PROBS} [members, rows, classes] is needed.")
    if 0 in place.shape:
        raise EnsembleError(
            f"{path} has {LOG_PROBS} of shape {list(place.shape)}: there is nothing to measure."
        )
    num_members, num_rows, num_classes = place.shape
    check_targets(target_N, num_classes, num_rows=num_rows)
    return num_members, num_rows, num_classes


def _side_by_side(calls: Sequence[Callable[[], Found]], threads: int) -> list[Found]:
    """What each call gives, in order; each thread computes by itself, for pieces are too small to be shared."""
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
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
