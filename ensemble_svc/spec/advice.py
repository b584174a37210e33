"""What is allowed in a job and yet seldom meant: one sentence each, to be read before anything trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ensemble_svc.spec.aggregate import All
from ensemble_svc.spec.askers import Tpe
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.schedulers import Hyperband, NoScheduler
from ensemble_svc.spec.search import SearchSpec


def advice(job: JobSpec) -> tuple[str, ...]:
    """Warnings about the job itself, whatever its data are; each names what to do."""
    return () if job.search is None else tuple(_of_search(job, job.search))


def _of_search(job: JobSpec, search: SearchSpec) -> Iterator[str]:
    left = num_left(search, job.training.epochs)
    alone = left is not None and left * search.seeds_per_trial < 2
    if alone and search.candidates == "finished" and search.refit is None:
        yield (
            f"search.scheduler: {search.scheduler.name} leaves {left} of {search.num_trials:,} trials to train to "
            "the end, and one member is no ensemble; set search.candidates: all or search.refit, or give more trials "
            "or a smaller factor"
        )
    elif isinstance(job.aggregate.select, All) and _keeps_bad_ones(search):
        yield (
            f"aggregate.select: all puts every one of the {search.num_trials:,} trials into the ensemble, bad ones "
            "too; greedy chooses those that help"
        )


def _keeps_bad_ones(search: SearchSpec) -> bool:
    """Whether what may be in the ensemble is more than the trials that a comparison with others has left."""
    unranked = isinstance(search.scheduler, NoScheduler | Hyperband)
    return search.num_trials > 1 and (unranked or search.candidates == "all")


def num_left(search: SearchSpec, epochs: int) -> int | None:
    """Trials that no rung stops, if all of them get there; None where no rung ranks them, or stages differ in length.

    Args:
        epochs: of each trial.
    """
    ladder = Ladder.of(search, epochs)
    if ladder is None or search.coarse_to_fine is not None:
        return None
    return sum(_left_of(ladder, some) for some in _ranked_together(search))


def _left_of(ladder: Ladder, trials: Sequence[int]) -> int:
    """How many of the trials that train at the same time are stopped at no rung; which is all the same."""
    standing = dict.fromkeys(trials, 0.0)
    for rung in ladder.rungs:
        for trial in ladder.stopped(standing, rung):
            del standing[trial]
    return len(standing)


def _ranked_together(search: SearchSpec) -> Iterator[range]:
    """The trials of each round that is asked for; the configurations that the job gives are ranked with the first."""
    if not isinstance(search.algorithm, Tpe):
        yield range(search.num_trials)
        return
    begin, end = 0, len(search.first)
    while begin < search.num_trials:
        end = min(end + search.algorithm.batch, search.num_trials)
        yield range(begin, end)
        begin = end
