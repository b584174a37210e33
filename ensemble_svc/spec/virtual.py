"""Several members of the ensemble from one training: where its cycles end, and what each kind needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ensemble_svc.spec.averages import Cycles, Swag
from ensemble_svc.spec.clash import Clash
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.model import ImageNetwork, Model, Network
from ensemble_svc.spec.schedules import Cyclic
from ensemble_svc.spec.training import TrainingSpec

SNAPSHOTS: KeyPath = ("ensemble", "snapshots")
MC_SAMPLES: KeyPath = ("ensemble", "mc_samples")
AVERAGE: KeyPath = ("training", "average")
EPOCHS: KeyPath = ("training", "epochs")
STOPPING: KeyPath = ("training", "early_stopping")


def cycle_ends(training: TrainingSpec) -> tuple[int, ...]:
    """Epochs, counted from 1, with which a cycle of the learning rate ends; none where it has no cycles.

    The cycles of an average take the schedule's place.
    """
    if isinstance(training.average, Cycles):
        return training.average.ends(training.epochs)
    return training.schedule.ends(training.epochs) if isinstance(training.schedule, Cyclic) else ()


def virtual_clashes(job: JobSpec) -> Iterator[Clash]:
    """What speaks against the members that the job wants in place of the trained ones."""
    yield from _one_kind(job)
    if job.ensemble.snapshots:
        yield from _snapshots(job)
    if job.ensemble.mc_samples:
        yield from _mc_samples(job)
    if isinstance(job.training.average, Swag):
        yield from _swag(job, job.training.average)


def _one_kind(job: JobSpec) -> Iterator[Clash]:
    ensemble, swag = job.ensemble, isinstance(job.training.average, Swag)
    asked = [
        (SNAPSHOTS, f"ensemble.snapshots is {ensemble.snapshots}", ensemble.snapshots > 0),
        (MC_SAMPLES, f"ensemble.mc_samples is {ensemble.mc_samples}", ensemble.mc_samples > 0),
        (AVERAGE, "training.average is 'swag'", swag),
    ]
    found = [(key, words) for key, words, given in asked if given]
    if len(found) > 1:
        listed = " and ".join(words for _, words in found)
        yield Clash(tuple(key for key, _ in found), f"{listed}; the members come of one of them")


def _snapshots(job: JobSpec) -> Iterator[Clash]:
    training, wanted = job.training, job.ensemble.snapshots
    schedule, ends = training.schedule, cycle_ends(training)
    cycled = isinstance(training.average, Cycles)
    if not cycled and not isinstance(schedule, Cyclic):
        words = (
            f"{wanted} are of the ends of cycles, and training.schedule '{schedule.name}' has none; "
            "give schedule: cyclic, or average: swa"
        )
        yield Clash((SNAPSHOTS, ("training", "schedule")), words)
    elif not cycled and isinstance(schedule, Cyclic) and training.epochs % schedule.cycles:
        words = (
            f"{schedule.cycles} cycles do not end with epochs when there are {training.epochs} of them; "
            "give a number of epochs that they divide"
        )
        yield Clash((("training", "schedule", "cycles"), EPOCHS, SNAPSHOTS), words)
    elif len(ends) < wanted:
        words = f"{wanted} are more than the {len(ends)} cycles of the training; give at most {len(ends)}"
        yield Clash((SNAPSHOTS, AVERAGE if cycled else ("training", "schedule")), words)
    if training.early_stopping is not None:
        words = "would cut off the cycles whose ends are the members of ensemble.snapshots; give null"
        yield Clash((STOPPING, SNAPSHOTS), words)


def _mc_samples(job: JobSpec) -> Iterator[Clash]:
    """Of members that differ in their dropout some may have none."""
    wanted, model = job.ensemble.mc_samples, job.model
    if not isinstance(model, Network):
        words = (
            f"{wanted} draw the dropout of this project's own networks, and model '{model.name}' is not one"
        )
        yield Clash((MC_SAMPLES, ("model",)), words)
    elif not drops(model) and not any(_varied_rates(job)):
        words = f"{wanted} draw dropout, and no member has any; give model.dropout, 0.1 for instance"
        yield Clash((MC_SAMPLES, ("model", "dropout")), words)


def _varied_rates(job: JobSpec) -> Iterator[Any]:
    """The dropout that ``ensemble.vary`` gives."""
    names = ("dropout", "channel_dropout")
    for key, values in job.ensemble.vary.items():
        if key in ("model.dropout", "model.channel_dropout"):
            yield from values
        elif key == "model":
            yield from (value.get(name) for value in values if isinstance(value, Mapping) for name in names)


def drops(model: Model) -> bool:
    """Whether a network of the zoo has dropout."""
    channels = isinstance(model, ImageNetwork) and model.channel_dropout > 0
    return channels or (isinstance(model, Network) and model.dropout > 0)


def _swag(job: JobSpec, swag: Swag) -> Iterator[Clash]:
    epochs = job.training.epochs
    if swag.num_cycles(epochs, epochs) < 2:
        words = (
            f"{swag.every} epochs fit less than twice into the {epochs - swag.first_epoch(epochs)} that are left of "
            "training.epochs, and a spread is of two ends at least; give less"
        )
        yield Clash(((*AVERAGE, "every"), EPOCHS), words)
    if swag.rank == 1:
        yield Clash(
            ((*AVERAGE, "rank"),),
            "1 deviation spans no covariance; give 0 for the diagonal alone, or 2 and more",
        )
    if job.training.early_stopping is not None:
        words = "would cut off the iterates that training.average 'swag' draws from; give null"
        yield Clash((STOPPING, AVERAGE), words)
