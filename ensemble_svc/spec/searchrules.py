"""Rules of the ``search`` section: a space one can draw from, and results one can judge by."""

from __future__ import annotations

from collections.abc import Iterator

from ensemble_svc.errors import did_you_mean
from ensemble_svc.spec.clash import Clash
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.data import UNSEEN
from ensemble_svc.spec.domains import Domain
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.model import PythonModel
from ensemble_svc.spec.search import MOST_MEMBERS, Grid, Halving, SearchSpec, Sobol
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
    if isinstance(search.scheduler, Halving):
        yield from _halving(job, search, search.scheduler)


def _space(search: SearchSpec) -> Iterator[Clash]:
    if not search.space:
        yield Clash((_SPACE,), "{} has no key to search; give one, such as training.optimizer.lr")
    for key, domain in search.space.items():
        faults = list(_broken(domain))
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


def _halving(job: JobSpec, search: SearchSpec, halving: Halving) -> Iterator[Clash]:
    """Trials are ranked on validation rows after an epoch that is not the last, all of a structure in one pack."""
    where: KeyPath = ("search", "scheduler")
    epochs, rows, compute = job.training.epochs, job.data.validation, job.compute
    if halving.min_epochs >= epochs:
        words = (
            f"'halving' first stops trials after epoch {halving.min_epochs}, and training.epochs is {epochs}"
        )
        yield Clash((where, ("training", "epochs")), f"{words}; give more epochs, or scheduler: none")
    if rows == 0 or rows in UNSEEN:
        words = f"'halving' ranks trials on validation rows, and data.validation is {shown(rows)}"
        yield Clash((where, ("data", "validation")), f"{words}; give it a share such as 0.15")
    held = "'halving' ranks the trials of one pack"
    if compute.pack == "off" or (isinstance(compute.pack, int) and compute.pack < search.num_members):
        words = f"{held}, and compute.pack is {shown(compute.pack)}; leave it at auto"
        yield Clash((where, ("compute", "pack")), words)
    elif isinstance(job.model, PythonModel) and compute.pack == "auto":
        words = (
            f"{held}, and a network of your own has none; set compute.pack to {search.num_members} if it may"
        )
        yield Clash((where, ("compute", "pack"), ("model",)), words)
    if compute.processes(on_gpu=compute.device != "cpu") > 1:
        words = (
            f"{held}, and a member over several processes trains alone; leave compute.processes_per_member"
        )
        yield Clash((where, ("compute", "processes_per_member"), ("compute", "gpus_per_member")), words)


def _broken(domain: Domain) -> Iterator[tuple[KeyPath, str]]:
    """Keys below a domain, and what is wrong there whatever the domain is for."""
    laws = domain.laws
    if len(laws) != 1:
        known = ", ".join(type(domain).model_fields)
        given = f"{' and '.join(laws)} are given" if laws else "no law is given"
        yield (), f"{given}; give one of {known}"
        return
    (law,) = laws
    if law == "choice":
        if not domain.choice:
            yield (law,), "[] holds no value; give at least one, or drop the key"
        return
    first, second, *rest = getattr(domain, law)
    if law == "normal":
        if second <= 0:
            yield (law, 1), f"{shown(second)} is not allowed; a standard deviation is above 0"
        return
    if first > second or (first == second and law != "randint"):
        words = f"from {shown(first)} to {shown(second)} there is nothing to draw from"
        yield (law,), f"{words}; give the smaller number first"
    elif law == "loguniform" and first <= 0:
        yield (law, 0), f"{shown(first)} has no logarithm; give a number above 0, or uniform"
    elif rest and not 0 < rest[0] <= second - first:
        words = f"{shown(rest[0])} is no step from {shown(first)} to {shown(second)}"
        yield (law, 2), f"{words}; give a number above 0 that is at most their difference"
