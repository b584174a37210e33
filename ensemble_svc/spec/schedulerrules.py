"""Rules of ``search.scheduler``: trials that can be ranked before they end."""

from __future__ import annotations

from collections.abc import Iterator

from ensemble_svc.spec.askers import Bohb
from ensemble_svc.spec.clash import Clash
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.data import UNSEEN
from ensemble_svc.spec.job import JobSpec, KFold
from ensemble_svc.spec.model import PythonModel
from ensemble_svc.spec.populationrules import population_clashes
from ensemble_svc.spec.schedulers import Asha, Hyperband, Median, Pbt, Ranked
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
    elif isinstance(search.algorithm, Bohb) and search.objective != "loss":
        words = f"'bohb' learns from each trial's own metric at the rungs, not from its {search.objective}"
        yield Clash(
            (("search", "algorithm"), ("search", "objective")), f"{words}; leave search.objective out"
        )
    if isinstance(search.scheduler, Pbt):
        yield from population_clashes(job, search, search.scheduler)
    if isinstance(search.scheduler, Ranked):
        yield from _ranked(job, search.scheduler)
    if isinstance(search.scheduler, Hyperband):
        yield from _one_length(search)
    if isinstance(search.scheduler, Asha | Median):
        yield from _asynchronous(job, search, search.scheduler)
    if isinstance(search.scheduler, Ranked | Pbt):
        yield from _held_out(job, f"'{search.scheduler.name}' ranks")
        yield from _alone(job, search.scheduler.name)


def _ranked(job: JobSpec, scheduler: Ranked) -> Iterator[Clash]:
    """Trials stop after an epoch that is not the last."""
    epochs = job.training.epochs
    if not any(scheduler.brackets(epochs)):
        words = (
            f"'{scheduler.name}' first stops trials after epoch {scheduler.min_epochs}, "
            f"and training.epochs is {epochs}"
        )
        yield Clash((_WHERE, ("training", "epochs")), f"{words}; give more epochs, or scheduler: none")


def _one_length(search: SearchSpec) -> Iterator[Clash]:
    """The epochs of the rungs follow from those of a trial."""
    for key in ("training", "training.epochs"):
        if any(dim.key == key for dim in search.flat.dims):
            words = "gives trials epochs of their own, and 'hyperband' lays its rungs by those of all"
            remedy = "take it out of the space, or set search.scheduler to halving"
            yield Clash((("search", "space", key), _WHERE), f"{words}; {remedy}")


def _held_out(job: JobSpec, judges: str) -> Iterator[Clash]:
    rows = job.data.validation
    if rows == 0 or rows in UNSEEN:
        words = f"{judges} trials on validation rows, and data.validation is {shown(rows)}"
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


def _asynchronous(job: JobSpec, search: SearchSpec, scheduler: Asha | Median) -> Iterator[Clash]:
    """Trials show results before their last epoch, each in a slot of its own, to Ray Tune."""
    name, epochs, compute = scheduler.name, job.training.epochs, job.compute
    if scheduler.min_epochs >= epochs:
        words = (
            f"'{name}' stops no trial before epoch {scheduler.min_epochs}, and training.epochs is {epochs}"
        )
        remedy = "give more epochs" if epochs == 1 else "lower search.scheduler.min_epochs"
        yield Clash((_WHERE, ("training", "epochs")), f"{words}; {remedy}, or scheduler: none")
    yield from _held_out(job, f"'{name}' compares")
    if compute.executor == "local":
        words = (
            f"'{name}' compares trials that train beside each other, as Ray Tune hears of them, and "
            "compute.executor is 'local'; set it to ray, or use scheduler: halving"
        )
        yield Clash((_WHERE, ("compute", "executor")), words)
    if compute.processes(on_gpu=compute.device != "cpu") > 1:
        words = f"'{name}' stops a trial in one process; leave compute.processes_per_member"
        yield Clash((_WHERE, ("compute", "processes_per_member"), ("compute", "gpus_per_member")), words)
    if search.seeds_per_trial > 1:
        yield from _apart(job, search, f"'{name}' judges a trial's seeds together, in one pack")


def _apart(job: JobSpec, search: SearchSpec, held: str) -> Iterator[Clash]:
    """What keeps the members of one trial from sharing a pack."""
    compute, seeds = job.compute, search.seeds_per_trial
    if compute.pack == "off" or (isinstance(compute.pack, int) and compute.pack < seeds):
        words = f"{held}, and compute.pack is {shown(compute.pack)}; leave it at auto"
        yield Clash((_WHERE, ("compute", "pack")), words)
    elif isinstance(job.model, PythonModel) and compute.pack == "auto":
        words = f"{held}, and a network of your own has none; set compute.pack to {seeds} if it may"
        yield Clash((_WHERE, ("compute", "pack"), ("model",)), words)
    if isinstance(job.ensemble.resample, KFold):
        words = f"{held}, and folds may differ in their rows; set search.seeds_per_trial to 1"
        yield Clash((_WHERE, ("search", "seeds_per_trial"), ("ensemble", "resample")), words)
