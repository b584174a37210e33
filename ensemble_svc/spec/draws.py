"""The values of a search's trials, as functions of the job's seed and of the trial alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from zlib import crc32

from ensemble_svc.spec.askers import Bohb, Grid, Random, Sobol, Tpe
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.randomness import derive_seed
from ensemble_svc.spec.yaml import frozen


def drawn(job: JobSpec, trial: int) -> dict[str, Any]:
    """The values of a trial by dotted path; the same however many trials there are.

    Of an algorithm that learns, a stand-in: what a random search would draw. Its own values come once earlier
    trials have results, see ``with_trials``.
    """
    search = job.search
    if search is None:
        return {}
    if trial < len(search.first):
        given = search.first[trial]
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


def with_trials(job: JobSpec, trials: tuple[Mapping[str, Any], ...]) -> JobSpec:
    """The job whose trials have these values, in this order, and no others."""
    assert job.search is not None
    search = job.search.model_copy(update={"first": trials, "trials": len(trials)})
    ensemble = job.ensemble.model_copy(update={"members": search.num_members})
    return job.model_copy(update={"search": search, "ensemble": ensemble})


def _u(seed: int, trial: int, dim: str) -> float:
    """Evenly from [0, 1); a dimension's draws do not change with the others of the space."""
    return (derive_seed(seed, trial, "search", crc32(dim.encode())) >> 10) / 2**53


def _sobol(seed: int, num_keys: int, trial: int) -> tuple[float, ...]:
    return _sobol_points(seed, num_keys, max(6, trial.bit_length()))[trial]


@lru_cache(maxsize=8)
def _sobol_points(seed: int, num_keys: int, log2: int) -> tuple[tuple[float, ...], ...]:
    """The first 2 ** ``log2`` points."""
    from scipy.stats import qmc  # here, since no other job needs it and it takes a second to load

    points = qmc.Sobol(num_keys, scramble=True, rng=seed).random_base2(log2)
    return tuple(tuple(min(u, 1 - 2**-53) for u in row) for row in points.tolist())
