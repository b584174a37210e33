"""The values of a search's trials, as functions of the job's seed and of the trial alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from zlib import crc32

from ensemble_svc.spec.askers import Grid, Random, Sobol, Tpe
from ensemble_svc.spec.domains import Domain
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
        return {key: frozen(search.first[trial][key]) for key in search.space}
    match search.algorithm:
        case Random() | Tpe():
            found = {key: domain.at(_u(job.seed, trial, key)) for key, domain in search.space.items()}
        case Grid():
            found = _cell(search.space, trial)
        case Sobol():
            point = _sobol(derive_seed(job.seed, -1, "search"), len(search.space), trial - len(search.first))
            found = {k: domain.at(u) for (k, domain), u in zip(search.space.items(), point, strict=True)}
    return {key: frozen(value) for key, value in found.items()}


def with_trials(job: JobSpec, trials: tuple[Mapping[str, Any], ...]) -> JobSpec:
    """The job whose trials have these values, in this order, and no others."""
    assert job.search is not None
    search = job.search.model_copy(update={"first": trials, "trials": len(trials)})
    ensemble = job.ensemble.model_copy(update={"members": search.num_members})
    return job.model_copy(update={"search": search, "ensemble": ensemble})


def _u(seed: int, trial: int, key: str) -> float:
    """Evenly from [0, 1); a key's draws do not change with the other keys of the space."""
    return (derive_seed(seed, trial, "search", crc32(key.encode())) >> 10) / 2**53


def _cell(space: Mapping[str, Domain], trial: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, domain in reversed(list(space.items())):
        trial, number = divmod(trial, domain.num_values or 1)
        found[key] = domain.value(number)
    return {key: found[key] for key in space}


def _sobol(seed: int, num_keys: int, trial: int) -> tuple[float, ...]:
    return _sobol_points(seed, num_keys, max(6, trial.bit_length()))[trial]


@lru_cache(maxsize=8)
def _sobol_points(seed: int, num_keys: int, log2: int) -> tuple[tuple[float, ...], ...]:
    """The first 2 ** ``log2`` points."""
    from scipy.stats import qmc  # here, since no other job needs it and it takes a second to load

    points = qmc.Sobol(num_keys, scramble=True, rng=seed).random_base2(log2)
    return tuple(tuple(min(u, 1 - 2**-53) for u in row) for row in points.tolist())
