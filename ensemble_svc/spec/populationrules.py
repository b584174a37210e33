"""Rules of ``search.scheduler: pbt``: populations whose keys can change while they train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ensemble_svc.errors import SpecError
from ensemble_svc.registry import Elementwise, frozen
from ensemble_svc.spec.anatomy import shape_at
from ensemble_svc.spec.clash import Clash
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.override import split_path
from ensemble_svc.spec.schedulers import Pbt
from ensemble_svc.spec.schedules import Plateau
from ensemble_svc.spec.search import SearchSpec

_WHERE: KeyPath = ("search", "scheduler")


def population_clashes(job: JobSpec, search: SearchSpec, pbt: Pbt) -> Iterator[Clash]:
    """The rules that a job breaks whose trials are to be copied over each other."""
    epochs, trials = job.training.epochs, search.num_trials
    if pbt.interval >= epochs:
        words = f"'pbt' first compares trials after epoch {pbt.interval}, and training.epochs is {epochs}"
        yield Clash((_WHERE, ("training", "epochs")), f"{words}; give more epochs, or a shorter interval")
    if trials < 2:
        words = f"'pbt' copies trials over each other, and search.trials is {trials}; give at least 2"
        yield Clash((_WHERE, ("search", "trials")), words)
    if search.seeds_per_trial > 1:
        words = f"'pbt' changes each member apart, and search.seeds_per_trial is {search.seeds_per_trial}"
        yield Clash((_WHERE, ("search", "seeds_per_trial")), f"{words}; set it to 1")
    if search.goes_in_rounds:
        own = f"'{search.algorithm.name}'" if search.algorithm.learns else "coarse_to_fine"
        words = f"{own} learns what a trial's values are worth, and 'pbt' changes them"
        yield Clash((_WHERE, ("search", "algorithm")), f"{words}; set search.algorithm to sobol or random")
    if search.refit is not None:
        words = "refit trains the values of a trial again, and 'pbt' changes them"
        yield Clash((_WHERE, ("search", "refit")), f"{words}; leave search.refit out")
    if isinstance(job.training.schedule, Plateau):
        words = "'plateau' lowers a member's rate by its own past, and 'pbt' gives it another's"
        yield Clash((_WHERE, ("training", "schedule")), f"{words}; take another schedule")
    yield from _changeable(job, search)


SETTLED = ("training.epochs", "training.early_stopping", "training.average", "training.on_sick", "model.init")
"""Keys that may differ between the members of a pack and cannot change once they train."""


def _changeable(job: JobSpec, search: SearchSpec) -> Iterator[Clash]:
    """The keys of the space can change each by itself, and some act on a step alone."""
    data = frozen(job.model_dump(include={"model": True, "training": True, "data": {"augment"}}))
    below = {dim.where[0] for dim in search.flat.dims if dim.under}
    for key in search.space:
        where: KeyPath = ("search", "space", key)
        if any(key == name or key.startswith(f"{name}.") for name in SETTLED):
            words = "is settled before training begins, and 'pbt' changes keys while it goes on"
            yield Clash((where, _WHERE), f"{words}; take it out of the space")
        elif key in below:
            words = "'pbt' changes each key apart, and here one depends on another"
            yield Clash((where, _WHERE), f"{words}; drop when, and laws within the items of a choice")
    if all(_is_structural(key, data) for key in search.space):
        words = "every key of the space gives trials other networks, or other parts, and 'pbt' changes none of those"
        yield Clash((_WHERE, ("search", "space")), f"{words}; search keys such as training.optimizer.lr too")


def _is_structural(key: str, data: Mapping[str, Any]) -> bool:
    """Whether a key that the job has may not differ between the members of a pack."""
    try:
        path = split_path(key, data)
    except SpecError:
        return False
    shapes = [shape_at(data, path[:depth]) for depth in range(1, len(path) + 1)]
    if any(shape is None for shape in shapes):
        return False
    return not any(isinstance(mark, Elementwise) for shape in shapes if shape for mark in shape.marks)
