"""Rules of the ``search`` section: a space one can draw from, and results one can judge by."""

from __future__ import annotations

from collections.abc import Iterator

from ensemble_svc.spec.askers import MOST_MEMBERS, Grid
from ensemble_svc.spec.clash import Clash
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.data import UNSEEN
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.refiningrules import refining_clashes
from ensemble_svc.spec.schedulerrules import scheduler_clashes
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.spec.spacerules import first_clashes, space_clashes
from ensemble_svc.spec.wording import count

_METRICS = {"classification": ("nll", "accuracy"), "regression": ("nll", "rmse"), "multitask": ("nll",)}


def search_clashes(job: JobSpec) -> Iterator[Clash]:
    """The rules that the job's ``search`` section breaks, but for those of its keys (``contradictions``)."""
    search = job.search
    if search is None:
        return
    faults = list(space_clashes(search))
    yield from faults
    if not faults:
        yield from first_clashes(search)
        yield from _trials(job, search)
    yield from _metric(job, search)
    yield from _objective(job, search)
    yield from refining_clashes(job, search)
    yield from scheduler_clashes(job, search)


def _trials(job: JobSpec, search: SearchSpec) -> Iterator[Clash]:
    where: KeyPath = ("search", "trials")
    whole = search.model_copy(update={"trials": "auto"}).num_wanted
    if isinstance(search.algorithm, Grid) and search.num_wanted != whole:
        words = f"{count(search.num_wanted, 'trial')}, and the grid has {count(whole, 'configuration')}"
        yield Clash((where, ("search", "algorithm")), f"{words}; leave the key out")
    elif search.num_trials < len(search.first):
        words = f"{search.num_trials} trials are too few for the {len(search.first)} of search.first"
        yield Clash((where, ("search", "first")), words)
    elif search.budget and search.budget.trials and search.seeds_per_trial > search.budget.trials:
        words = f"{search.seeds_per_trial} seeds of each trial, and search.budget.trials is {search.budget.trials}"
        where = ("search", "seeds_per_trial")
        yield Clash(
            (where, ("search", "budget", "trials")), f"{words}; try more configurations with fewer seeds"
        )
    elif search.num_members > MOST_MEMBERS:
        words = (
            f"{search.num_trials:,} trials of {search.seeds_per_trial:,} are {search.num_members:,} members"
        )
        yield Clash((where, ("search", "seeds_per_trial")), f"{words}; at most {MOST_MEMBERS:,} are allowed")
    elif job.ensemble.members != search.num_members:
        words = f"{count(job.ensemble.members, 'member')}, and the search has {search.num_members:,}"
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


def _objective(job: JobSpec, search: SearchSpec) -> Iterator[Clash]:
    """What a trial adds to an ensemble is for an algorithm that learns, and measured on rows set aside."""
    where: KeyPath = ("search", "objective")
    if search.objective == "loss":
        return
    if not search.goes_in_rounds:
        words = f"'{search.objective}' is for what learns, and '{search.algorithm.name}' does not; use optuna"
        yield Clash((where, ("search", "algorithm")), words)
    elif job.data.validation in UNSEEN:
        words = (
            f"'{search.objective}' is measured on rows that no trial trains on; give data.validation a share"
        )
        yield Clash((where, ("data", "validation")), words)
    elif job.task == "multitask":
        yield Clash((where, ("task",)), f"'{search.objective}' is of one task; use loss")
