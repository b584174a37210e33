"""Rules of ``search.scheduler``: trials that can be ranked before they end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ensemble_svc.errors import SpecError
from ensemble_svc.registry import Elementwise, frozen
from ensemble_svc.spec.anatomy import shape_at
from ensemble_svc.spec.askers import Bohb
from ensemble_svc.spec.clash import Clash
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.data import UNSEEN
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.model import PythonModel
from ensemble_svc.spec.override import split_path
from ensemble_svc.spec.schedulers import Hyperband, Pbt, Ranked
from ensemble_svc.spec.schedules import Plateau
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.spec.wording import shown

_WHERE: KeyPath = ("search", "scheduler")


def scheduler_clashes(job: JobSpec, search: SearchSpec) -> Iterator[Clash]:
    """The rules that the scheduler of the job's search breaks."""
    if isinstance(search.algorithm, Bohb) and not isinstance(search.scheduler, Hyperband):
        words = (
            f"'bohb' proposes the brackets of hyperband, and search.scheduler is '{search.scheduler.name}'"
        )
        yield Clash(
            (("search", "algorithm"), _WHERE), f"{words}; set it to hyperband, or algorithm to optuna"
        )
    if isinstance(search.scheduler, Pbt):
        yield from _pbt(job, search, search.scheduler)
    if isinstance(search.scheduler, Ranked):
        yield from _ranked(job, search.scheduler)
    if isinstance(search.scheduler, Ranked | Pbt):
        yield from _held_out(job, search.scheduler.name)
        yield from _alone(job, search.scheduler.name)


def _pbt(job: JobSpec, search: SearchSpec, pbt: Pbt) -> Iterator[Clash]:
    """Members that are copied over each other: all in one pack, and alike but for what may change while they train."""
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
    if search.algorithm.learns:
        words = f"'{search.algorithm.name}' learns what a trial's values are worth, and 'pbt' changes them"
        yield Clash((_WHERE, ("search", "algorithm")), f"{words}; set search.algorithm to sobol or random")
    if isinstance(job.training.schedule, Plateau):
        words = "'plateau' lowers a member's rate by its own past, and 'pbt' gives it another's"
        yield Clash((_WHERE, ("training", "schedule")), f"{words}; take another schedule")
    yield from _one_pack(job, search)
    yield from _changeable(job, search)


def _one_pack(job: JobSpec, search: SearchSpec) -> Iterator[Clash]:
    held, pack, where = "'pbt' copies trials inside a pack", job.compute.pack, ("compute", "pack")
    if pack == "off" or (isinstance(pack, int) and pack < search.num_members):
        yield Clash((_WHERE, where), f"{held}, and compute.pack is {shown(pack)}; leave it at auto")
    elif isinstance(job.model, PythonModel) and pack == "auto":
        words = f"{held}, and a network of your own has none; set compute.pack to {search.num_members}"
        yield Clash((_WHERE, where, ("model",)), f"{words} if it may")


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


def _ranked(job: JobSpec, scheduler: Ranked) -> Iterator[Clash]:
    """Trials stop after an epoch that is not the last."""
    epochs = job.training.epochs
    if not any(scheduler.brackets(epochs)):
        after = scheduler.first_rung
        words = f"'{scheduler.name}' first stops trials after epoch {after}, and training.epochs is {epochs}"
        yield Clash((_WHERE, ("training", "epochs")), f"{words}; give more epochs, or scheduler: none")


def _held_out(job: JobSpec, name: str) -> Iterator[Clash]:
    rows = job.data.validation
    if rows == 0 or rows in UNSEEN:
        words = f"'{name}' ranks trials on validation rows, and data.validation is {shown(rows)}"
        yield Clash((_WHERE, ("data", "validation")), f"{words}; give it a share such as 0.15")


def _alone(job: JobSpec, name: str) -> Iterator[Clash]:
    """Members that wait at a rung leave their processes, and several cannot leave together."""
    compute = job.compute
    if compute.processes(on_gpu=compute.device != "cpu") > 1:
        words = f"'{name}' moves trials from pack to pack, and a member over several processes is in none"
        yield Clash(
            (_WHERE, ("compute", "processes_per_member"), ("compute", "gpus_per_member")),
            f"{words}; leave compute.processes_per_member",
        )
