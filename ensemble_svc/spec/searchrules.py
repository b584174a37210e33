"""Rules of the ``search`` section: a space one can draw from, and results one can judge by."""

from __future__ import annotations

from collections.abc import Iterator

from ensemble_svc.errors import did_you_mean
from ensemble_svc.spec.askers import MOST_MEMBERS, Grid, Sobol
from ensemble_svc.spec.clash import Clash
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.domainrules import broken
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.schedulerrules import scheduler_clashes
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.spec.source import escaped
from ensemble_svc.spec.wording import shown

MOST_SOBOL_KEYS = 21_201
"""Dimensions that the sequence has."""
_METRICS = {"classification": ("nll", "accuracy"), "regression": ("nll", "rmse"), "multitask": ("nll",)}
_SPACE: KeyPath = ("search", "space")


def search_clashes(job: JobSpec) -> Iterator[Clash]:
    """The rules that the job's ``search`` section breaks, but for those of its keys (``contradictions``)."""
    search = job.search
    if search is None:
        return
    faults = list(_space(search))
    yield from faults
    if not faults:
        yield from _first(search)
        yield from _trials(job, search)
    yield from _metric(job, search)
    yield from scheduler_clashes(job, search)


def _space(search: SearchSpec) -> Iterator[Clash]:
    if not search.space:
        yield Clash((_SPACE,), "{} has no key to search; give one, such as training.optimizer.lr")
    for key, domain in search.space.items():
        faults = list(broken(domain))
        yield from (Clash(((*_SPACE, key, *below),), words) for below, words in faults)
        if isinstance(search.algorithm, Grid) and not faults and domain.num_values is None:
            (law,) = domain.laws
            words = f"{law} has no end of values, and a grid has them all; use choice, randint or quniform"
            yield Clash(((*_SPACE, key, law), ("search", "algorithm")), words)
    if isinstance(search.algorithm, Sobol) and len(search.space) > MOST_SOBOL_KEYS:
        yield Clash((_SPACE,), f"{len(search.space):,} keys; the sequence has {MOST_SOBOL_KEYS:,} dimensions")


def _first(search: SearchSpec) -> Iterator[Clash]:
    if search.first and isinstance(search.algorithm, Grid):
        yield Clash((("search", "first"), ("search", "algorithm")), "a grid tries every configuration anyway")
        return
    for number, given in enumerate(search.first):
        where: KeyPath = ("search", "first", number)
        for key in given:
            if key not in search.space:
                near = did_you_mean(key[:100], search.space)
                yield Clash(((*where, key),), f"is no key of search.space.{near}")
        for key, domain in search.space.items():
            if key not in given:
                yield Clash(
                    (where,), f"'{escaped(key)}' is missing; a configuration gives every key of the space"
                )
            elif not domain.holds(given[key]):
                words = f"{shown(given[key])} is not in the space: {shown(domain.model_dump())}"
                yield Clash(((*where, key),), words)


def _trials(job: JobSpec, search: SearchSpec) -> Iterator[Clash]:
    where: KeyPath = ("search", "trials")
    whole = search.model_copy(update={"trials": "auto"}).num_trials
    if isinstance(search.algorithm, Grid) and search.num_trials != whole:
        words = f"{search.num_trials:,} trials, and the grid has {whole:,} configurations; leave the key out"
        yield Clash((where, ("search", "algorithm")), words)
    elif search.num_trials < len(search.first):
        words = f"{search.num_trials} trials are too few for the {len(search.first)} of search.first"
        yield Clash((where, ("search", "first")), words)
    elif search.num_members > MOST_MEMBERS:
        words = (
            f"{search.num_trials:,} trials of {search.seeds_per_trial:,} are {search.num_members:,} members"
        )
        yield Clash((where, ("search", "seeds_per_trial")), f"{words}; at most {MOST_MEMBERS:,} are allowed")
    elif job.ensemble.members != search.num_members:
        words = f"{job.ensemble.members:,} members, and the search has {search.num_members:,}"
        yield Clash(
            (("ensemble", "members"), where), f"{words} (its trials are the members); leave the key out"
        )


def _metric(job: JobSpec, search: SearchSpec) -> Iterator[Clash]:
    known = _METRICS[job.task]
    if search.metric not in known:
        words = f"'{search.metric}' is not a measure of {job.task}; allowed: {', '.join(known)}"
        yield Clash((("search", "metric"), ("task",)), words)
    elif search.algorithm.learns and job.data.validation == 0:
        words = (
            f"'{search.algorithm.name}' learns from held-out rows, and data.validation is 0; give it a share"
        )
        yield Clash((("search", "algorithm"), ("data", "validation")), words)
