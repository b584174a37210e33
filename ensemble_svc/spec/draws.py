"""The values of a search's trials, as functions of the job's seed and of the trial alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from zlib import crc32

from ensemble_svc.spec.askers import Bohb, Grid, Random, Sobol, Tpe
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.randomness import derive_seed, evenly
from ensemble_svc.spec.search import Repeated, first_again
from ensemble_svc.spec.yaml import frozen


def drawn(job: JobSpec, trial: int) -> dict[str, Any]:
    """The values of a trial by dotted path; the same however many trials there are.

    Of an algorithm that learns, a stand-in: what a random search would draw. Its own values come once earlier
    trials have results, see ``with_trials``.
    """
    search = job.search
    if search is None:
        return {}
    again = trial - first_again(search.seeds_per_trial)
    if again >= 0 or trial < len(search.first):
        given = search.again[again] if isinstance(search, Repeated) and again >= 0 else search.first[trial]
        keys = [search.flat.by_name[name].key for name in search.flat.placed(given)]
        return {key: frozen(given[key]) for key in dict.fromkeys((*keys, *given))}
    space = search.flat
    match search.algorithm:
        case Grid():
            found = space.cell(
                trial % space.num_cells
            )  # a job with more trials than cells is refused elsewhere
        case Random() | Sobol() | Tpe() | Bohb():
            point = point_of(job, trial)
            found = space.draw(lambda dim: dim.domain.at(point[dim.name]))
    return {key: frozen(value) for key, value in found.items()}


def point_of(job: JobSpec, trial: int) -> dict[str, float]:
    """Where in [0, 1) a trial lies in each dimension, whether it is drawn or not."""
    assert job.search is not None
    dims = job.search.flat.dims
    if isinstance(job.search.algorithm, Sobol):
        seed = derive_seed(job.seed, -1, "search")
        point = _sobol(seed, len(dims), trial - len(job.search.first))
        return {dim.name: u for dim, u in zip(dims, point, strict=True)}
    return {dim.name: _u(job.seed, trial, dim.name) for dim in dims}


def with_trials(
    job: JobSpec, trials: tuple[Mapping[str, Any], ...], again: Mapping[int, Mapping[str, Any]] | None = None
) -> JobSpec:
    """The job whose trials have these values, in this order, and no others.

    Args:
        again: what is trained again of them, see :class:`ensemble_svc.spec.search.Repeated`.
    """
    assert job.search is not None
    own = {**dict(job.search), "first": trials, "trials": len(trials), "again": again or {}}
    search = Repeated.model_construct(**own)
    members = search.num_members + len(search.again) * search.seeds_per_trial
    ensemble = job.ensemble.model_copy(update={"members": members})
    return job.model_copy(update={"search": search, "ensemble": ensemble})


def indices(job: JobSpec) -> tuple[int, ...]:
    """The indices of the job's members: from 0, and from ``AGAIN`` those that train a configuration again."""
    search = job.search
    if not isinstance(search, Repeated):
        return tuple(range(job.ensemble.members))
    seeds, start = search.seeds_per_trial, first_again(search.seeds_per_trial)
    further = ((start + place) * seeds + seed for place in sorted(search.again) for seed in range(seeds))
    return (*range(search.num_members), *further)


def _u(seed: int, trial: int, dim: str) -> float:
    """Evenly from [0, 1); a dimension's draws do not change with the others of the space."""
    return evenly(seed, trial, "search", crc32(dim.encode()))


def _sobol(seed: int, num_keys: int, trial: int) -> tuple[float, ...]:
    return _sobol_points(seed, num_keys, max(6, trial.bit_length()))[trial]


@lru_cache(maxsize=8)
def _sobol_points(seed: int, num_keys: int, log2: int) -> tuple[tuple[float, ...], ...]:
    """The first 2 ** ``log2`` points."""
    from scipy.stats import qmc  # here, since no other job needs it and it takes a second to load

    points = qmc.Sobol(num_keys, scramble=True, rng=seed).random_base2(log2)
    return tuple(tuple(min(u, 1 - 2**-53) for u in row) for row in points.tolist())
