"""The first arrows, which need no torch: job → data → members → plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble_svc.data.checks import check, check_augment, check_covariances, check_mixing
from ensemble_svc.data.dataset import Array, Dataset, InputSchema
from ensemble_svc.data.indices import member_rows
from ensemble_svc.data.schema import describe, num_answers
from ensemble_svc.data.shapes import shape_through
from ensemble_svc.data.sources import load_data
from ensemble_svc.data.split import Split, make_split
from ensemble_svc.plan.cost import DataShape
from ensemble_svc.plan.executor import Resources
from ensemble_svc.plan.measurement import Measured
from ensemble_svc.plan.members import make_members
from ensemble_svc.plan.placement import place, place_trials
from ensemble_svc.plan.plan import MemberSpec, Plan
from ensemble_svc.plan.rooms import num_devices
from ensemble_svc.plan.single import single_of
from ensemble_svc.spec.advice import advice
from ensemble_svc.spec.data import Column
from ensemble_svc.spec.job import JobSpec, NoResample
from ensemble_svc.spec.preprocess import Impute, Whiten
from ensemble_svc.spec.schedulers import Pbt, Ranked
from ensemble_svc.spec.tasks import kinds
from ensemble_svc.store.journal import Journal


@dataclass(frozen=True)
class Prepared:
    """Data that has been read, split and checked, with what a person should know of them and of the job."""

    dataset: Dataset
    split: Split
    schema: InputSchema
    warnings: tuple[str, ...]


def prepare(job: JobSpec, directory: Path, *, read: DataSets | None = None) -> Prepared:
    """Read, split and check the job's data.

    Args:
        read: data sets that other jobs have read; the job takes its own from them, and adds it.

    Raises:
        DataError: what is wrong with it, where, and what to do.
    """
    dataset = (read or DataSets()).load(job, directory)
    split = make_split(dataset, job.data, task=job.task, seed=job.seed, directory=directory)
    warnings = (*advice(job), *check(dataset, split, job.data, task=job.task))
    return Prepared(dataset, split, describe(dataset, split, job.data), warnings)


class DataSets:
    """Data sets by what is read and how: jobs that differ in their split alone hold one, and its hash."""

    def __init__(self) -> None:
        self._known: dict[str, Dataset] = {}

    def put(self, job: JobSpec, directory: Path, dataset: Dataset) -> None:
        """Take this for what the job's source gives: the same rows with a lesson."""
        self._known[self._key(job, directory)] = dataset

    def load(self, job: JobSpec, directory: Path) -> Dataset:
        """As ``load_data``, once for each source.

        Raises:
            DataError: as ``load_data``.
        """
        key = self._key(job, directory)
        if key not in self._known:
            self._known[key] = load_data(job.data, task=job.task, directory=directory, kinds=kinds(job.tasks))
        return self._known[key]

    def _key(self, job: JobSpec, directory: Path) -> str:
        aside = job.data.split.column if isinstance(job.data.split, Column) else ""
        return repr((directory, job.task, kinds(job.tasks), aside, job.data.source))


def make_plan(
    job: JobSpec, prepared: Prepared, resources: Resources, measured: Measured | None = None
) -> Plan:
    """Where every member would run, and why.

    Args:
        measured: timings of an earlier look at these members, see :func:`measured_in`.

    Raises:
        DataError: a member whose rows are too few for its preprocessing.
    """
    members = trained_by(job, prepared)
    _check_bags(members, prepared)
    return place_members(job, prepared, members, resources, measured)


def place_members(
    job: JobSpec,
    prepared: Prepared,
    members: Sequence[MemberSpec],
    resources: Resources,
    measured: Measured | None = None,
) -> Plan:
    """The same for some of the job's members, or for all.

    Trials that are ranked together, or made like each other, share one pack where there is one device, so that they
    need not leave it.
    """
    sizes, shape = bag_sizes(members, prepared), data_shape(job, prepared)
    if job.search is not None and job.search.races:
        return place_trials(members, sizes, job.compute, resources, job.search.seeds_per_trial, shape=shape)
    scheduler = job.search and job.search.scheduler
    alone = job.compute.pack == "auto" and num_devices(job.compute, resources) == 1
    whole = isinstance(scheduler, Ranked | Pbt) and alone
    return place(members, sizes, job.compute, resources, measured, shape=shape, whole=whole)


def members_of(job: JobSpec, prepared: Prepared) -> tuple[MemberSpec, ...]:
    """The job's members on these data.

    Raises:
        DataError: an augmentation that some member varies and the images do not fit, or cutmix of a table.
    """
    dataset = prepared.dataset
    members = make_members(job, dataset.hash, prepared.split.hash, streamed=streams(job, dataset))
    for augment in {member.augment for member in members} - {job.data.augment}:
        check_augment(dataset, augment)
    for rules in {member.training.regularizers for member in members}:
        check_mixing(dataset, rules)
    return members


def trained_by(job: JobSpec, prepared: Prepared) -> tuple[MemberSpec, ...]:
    """All that the job trains: its members, and the single model that they are measured against, if it asks for one.

    Raises:
        DataError: as ``members_of``.
        SpecError: a single model that breaks a rule of the job.
    """
    members = members_of(job, prepared)
    if job.evaluate.single == "none":
        return members
    sizes, shape = bag_sizes(members, prepared), data_shape(job, prepared)
    return (*members, single_of(job, members, sizes, shape, num_rows=len(prepared.split.train)))


def data_shape(job: JobSpec, prepared: Prepared) -> DataShape:
    """What the planner must know of the data; the input as ``data.transform.Transform`` puts it out."""
    schema = prepared.schema
    steps = job.data.preprocess
    if schema.kind == "table":
        indicators = any(isinstance(step, Impute) and step.indicator for step in steps)
        codes = sum(len(values) + 1 for _, values in schema.categories)
        (width,) = shape_through(steps, (schema.num_numeric,))
        shape: tuple[int, ...] = (width + len(schema.indicators) * indicators + codes,)
    else:
        shape = shape_through(steps, schema.shape)
    answers = num_answers(schema, job.tasks)
    return DataShape(shape, answers, len(prepared.dataset), len(prepared.split.validation))


def measured_in(run: Path) -> Measured:
    """All timings that a run folder keeps; none where there is no run."""
    found = Measured()
    for event in Journal(run / "journal.jsonl").of_kind("measured"):
        found = found.joined(Measured.from_json(event["table"]))
    return found


def streams(job: JobSpec, dataset: Dataset) -> bool:
    """Whether the rows reach the devices as a stream."""
    if job.data.stream == "auto":
        return dataset.x.nbytes > job.data.device_gib * 2**30
    return job.data.stream == "on"


def bag_sizes(members: Sequence[MemberSpec], prepared: Prepared) -> dict[int, int]:
    """Rows that each member reads in an epoch, repeats counted, by its index."""
    sizes = {}
    for m in members:
        if m.streamed:
            sizes[m.index] = len(prepared.split.train)
            continue
        sizes[m.index] = len(rows_of(m, prepared))
    return sizes


def _check_bags(members: Sequence[MemberSpec], prepared: Prepared) -> None:
    for m in members:
        bagged = not isinstance(m.resample, NoResample)
        if bagged and any(isinstance(step, Whiten) for step in m.preprocess):
            num_rows = len(np.unique(rows_of(m, prepared)))
            check_covariances(prepared.dataset, m.preprocess, num_rows=num_rows, member=m.index)


def rows_of(member: MemberSpec, prepared: Prepared) -> Array:
    """A member's training rows, sorted."""
    return member_rows(
        member.resample,
        prepared.split,
        prepared.dataset.y,
        task=member.task,
        kinds=tuple(kinds(member.tasks).values()),
        job_seed=member.job_seed,
        member=member.index,
        streamed=member.streamed,
    )
