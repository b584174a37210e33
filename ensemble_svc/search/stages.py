"""The stages of a search from coarse to fine, as the journal has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from ensemble_svc.search.asking import Values
from ensemble_svc.search.narrowing import Span, Spans, drawn_within, narrowed
from ensemble_svc.spec.draws import point_of
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.refining import CoarseToFine
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.store.journal import Event

EPOCHS = "training.epochs"


def given(job: JobSpec, search: SearchSpec) -> tuple[Values, ...]:
    """The configurations that the job begins with, which train as long as the first stage does."""
    stages = search.coarse_to_fine
    return tuple(_timed(job, stages, 0, values) for values in search.first) if stages else search.first


def room_in_stage(
    search: SearchSpec, stages: CoarseToFine, asked: Sequence[Event], num_known: int
) -> tuple[int, int]:
    """The number of the stage to ask for next, and how many trials it has room for.

    Trials that are added to a finished search belong to its last stage.
    """
    stage = 1 + max((event["stage"] for event in asked), default=-1)
    ends = stages.ends(search.num_trials)
    while stage < stages.stages - 1 and ends[stage] <= num_known:
        stage += 1
    if stage >= stages.stages - 1:
        return stages.stages - 1, search.num_trials - num_known
    return stage, ends[stage] - num_known


def staged(
    job: JobSpec, asked: Sequence[Event], tried: Sequence[tuple[Values, float | None]], count: int, stage: int
) -> tuple[tuple[Values, ...], dict[str, Any]]:
    """The next trials of a stage, and facts for the journal: its number and what is left of the space.

    Args:
        job: as it is written.
        asked: the events of the trials that were asked for before.
        tried: every earlier trial with what is told of it.
    """
    search = job.search
    assert search is not None
    assert search.coarse_to_fine is not None
    spans = spans_of(search, search.coarse_to_fine, asked, tried, stage)
    trials = range(len(tried), len(tried) + count)
    found = [drawn_within(search.flat, spans, point_of(job, trial)) for trial in trials]
    ends = {dim.name: spans.get(dim.name, Span()).ends(dim.domain) for dim in search.flat.dims}
    values = tuple(_timed(job, search.coarse_to_fine, stage, one) for one in found)
    return values, {"stage": stage, "space": ends}


def spans_of(
    search: SearchSpec,
    stages: CoarseToFine,
    asked: Sequence[Event],
    tried: Sequence[tuple[Values, float | None]],
    stage: int,
) -> Spans:
    """What is left of the space in a stage: each one's is laid around the best of the one before."""
    numbers = [0] * len(search.first) + [event["stage"] for event in asked for _ in event["trials"]]
    spans: Spans = {}
    for before in range(stage):
        pairs = zip(numbers, tried, strict=False)
        own = [one for number, one in pairs if number == before]
        sound = [(loss, at) for at, (_, loss) in enumerate(own) if loss is not None and isfinite(loss)]
        best = [own[at][0] for _, at in sorted(sound)[: stages.num_best(len(own))]]
        spans = narrowed(search.flat, best, spans, stages.margin)
    return spans


def lasting(job: JobSpec, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A trial's configuration with the epochs of the last stage."""
    stages = job.search and job.search.coarse_to_fine
    return _timed(job, stages, stages.stages - 1, values) if stages else values


def _timed(job: JobSpec, stages: CoarseToFine, stage: int, values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the epochs of its stage."""
    epochs = stages.epochs(stage, job.training.epochs)
    return dict(values) if stages.growth == 1 else {**values, EPOCHS: epochs}
