"""Rules of ``search.scheduler: pbt``: one population, whose keys can change while it trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ensemble_svc.errors import SpecError
from ensemble_svc.registry import Elementwise, frozen
from ensemble_svc.spec.anatomy import shape_at
from ensemble_svc.spec.clash import Clash
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.job import JobSpec, KFold
from ensemble_svc.spec.model import PythonModel
from ensemble_svc.spec.override import split_path
from ensemble_svc.spec.schedulers import Pbt
from ensemble_svc.spec.schedules import Plateau
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.spec.wording import shown

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
    yield from _one_pack(job, search)
    yield from _one_structure(job)
    yield from _changeable(job, search)


def _one_pack(job: JobSpec, search: SearchSpec) -> Iterator[Clash]:
    held, pack, where = "'pbt' copies trials inside a pack", job.compute.pack, ("compute", "pack")
    if pack == "off" or (isinstance(pack, int) and pack < search.num_members):
        yield Clash((_WHERE, where), f"{held}, and compute.pack is {shown(pack)}; leave it at auto")
    elif isinstance(job.model, PythonModel) and pack == "auto":
        words = f"{held}, and a network of your own has none; set compute.pack to {search.num_members}"
        yield Clash((_WHERE, where, ("model",)), f"{words} if it may")
    if isinstance(job.ensemble.resample, KFold):
        words = f"{held}, and folds may differ in their rows; set ensemble.resample to none"
        yield Clash((_WHERE, ("ensemble", "resample")), words)


def _one_structure(job: JobSpec) -> Iterator[Clash]:
    """No key of ``ensemble.vary`` gives trials other networks."""
    data = frozen(job.model_dump(include={"model": True, "training": True, "data": {"augment"}}))
    for key, values in job.ensemble.vary.items():
        if len(set(map(shown, values))) > 1 and _is_structural(key, data):
            words = "gives trials other networks, or other parts, and 'pbt' copies one trial's over another's"
            yield Clash((("ensemble", "vary", key), _WHERE), f"{words}; take it out of ensemble.vary")


SETTLED = ("training.epochs", "training.early_stopping", "training.average", "training.on_sick", "model.init")
"""Keys that may differ between the members of a pack and cannot change once they train."""


def _changeable(job: JobSpec, search: SearchSpec) -> Iterator[Clash]:
    """Every key of the space acts on a step alone."""
    data = frozen(job.model_dump(include={"model": True, "training": True, "data": {"augment"}}))
    for key, domain in search.space.items():
        where: KeyPath = ("search", "space", key)
        if any(key == name or key.startswith(f"{name}.") for name in SETTLED):
            words = "is settled before training begins, and 'pbt' changes keys while it goes on"
            yield Clash((where, _WHERE), f"{words}; take it out of the space")
        elif domain.when is not None:
            yield Clash(
                (where, _WHERE), "'pbt' changes each key apart, and this one depends on another; drop when"
            )
        elif _is_structural(key, data):
            words = "gives trials other networks, or other parts, and 'pbt' copies one trial's over another's"
            yield Clash((where, _WHERE), f"{words}; search keys such as training.optimizer.lr")


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
