"""Rules of ``search.scheduler``: trials that can be ranked before they end."""

from __future__ import annotations

from collections.abc import Iterator

from ensemble_svc.spec.clash import Clash
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.data import UNSEEN
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.schedulers import Ranked
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.spec.wording import shown

_WHERE: KeyPath = ("search", "scheduler")


def scheduler_clashes(job: JobSpec, search: SearchSpec) -> Iterator[Clash]:
    """The rules that the scheduler of the job's search breaks."""
    if isinstance(search.scheduler, Ranked):
        yield from _ranked(job, search.scheduler)
        yield from _held_out(job, search.scheduler.name)
        yield from _alone(job, search.scheduler.name)


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
