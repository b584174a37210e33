"""Asking for the brackets of hyperband one at a time: BOHB (Falkner et al. 2018, arXiv:1807.01774).

A model of the losses at one rung proposes trials: the last rung with enough results, since later ones tell more and
earlier ones tell it of more trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.search.asking import WORST, Values, ask
from ensemble_svc.spec.askers import Bohb
from ensemble_svc.spec.draws import drawn
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.randomness import evenly
from ensemble_svc.store.atomic import read_verified
from ensemble_svc.store.history import decode_history
from ensemble_svc.store.journal import Event
from ensemble_svc.store.members import Sealed

AtRungs = Mapping[int, float]
"""A trial's loss at each rung that it came to, by epoch."""


def losses_at_rungs(ladder: Ladder, run: Path, members: Sequence[MemberSpec], seals: Sealed) -> list[AtRungs]:
    """What each trial's members say of it at the rungs, and at the end; ``WORST`` from where one diverged on.

    Args:
        members: of all trials, in order.
    """
    trials = groupby(members, key=lambda member: ladder.trial(member.index))
    return [
        _of_trial(ladder, run, [seals[m.digest] for m in some if m.digest in seals]) for _, some in trials
    ]


def _of_trial(ladder: Ladder, run: Path, seals: Sequence[Event]) -> AtRungs:
    if not seals:
        return {}
    curves, found = [_curve(run, seal, ladder.metric) for seal in seals], dict[int, float]()
    sound = all(seal["status"] == "done" for seal in seals)
    for epoch in (*ladder.rungs, ladder.epochs):
        if all(epoch in curve for curve in curves):
            loss = ladder.loss([curve[epoch] for curve in curves])
            found[epoch] = WORST if math.isnan(loss) else loss
        elif not sound:
            found[epoch] = WORST
    return found


def _curve(run: Path, seal: Event, metric: str) -> dict[int, float]:
    """A member's validation metric by epoch."""
    name = f"members/{seal['member']}/history.parquet"
    columns = decode_history(read_verified(run / name, seal["files"][name]))
    return dict(zip(map(int, columns["epoch"]), columns[f"val_{metric}"].tolist(), strict=True))


def ask_bracket(
    job: JobSpec, bohb: Bohb, tried: Sequence[tuple[Values, AtRungs]], count: int
) -> tuple[dict[str, Any], ...]:
    """The values of the next ``count`` trials: of the model, and some at random.

    Args:
        tried: every earlier trial, with its losses.
    """
    assert job.search is not None
    numbers = range(len(tried), len(tried) + count)
    rung = model_rung([losses for _, losses in tried], len(job.search.flat.dims))
    if rung is None:
        return tuple(drawn(job, trial) for trial in numbers)
    modelled = ask(job.search, job.seed, [(values, at.get(rung)) for values, at in tried], count)
    return tuple(
        drawn(job, trial) if _chance(job.seed, trial) < bohb.random_fraction else values
        for trial, values in zip(numbers, modelled, strict=True)
    )


def model_rung(tried: Sequence[AtRungs], num_keys: int) -> int | None:
    """The last rung with results of ``num_keys`` + 3 trials; None where none has so many."""
    results = [epoch for losses in tried for epoch in losses]
    return max((epoch for epoch in set(results) if results.count(epoch) >= num_keys + 3), default=None)


def _chance(seed: int, trial: int) -> float:
    """Evenly from [0, 1)."""
    return evenly(seed, trial, "search", 0)
