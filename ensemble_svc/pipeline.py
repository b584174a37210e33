"""The arrows in order: job → data → members → plan → trained members → ensemble → numbers → report.

Several jobs can go together: all are prepared before any begins, their slots train in one run of the
executor, and each ends in a folder of its own, as if it had been alone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from ensemble_svc.course import Clock, Course, Ready, mend
from ensemble_svc.errors import EnsembleSvcError, QuorumError, StoreError
from ensemble_svc.finding import settled
from ensemble_svc.foreign import check_foreign
from ensemble_svc.listening import Listener as Listener
from ensemble_svc.measuring import expect, plan_measured, took
from ensemble_svc.plan.executor import Executor, Resources
from ensemble_svc.plan.forecast import with_forecast
from ensemble_svc.plan.plan import Plan, Slot
from ensemble_svc.plan.progress import Progress
from ensemble_svc.planning import DataSets, make_plan, measured_in, prepare
from ensemble_svc.search.budget import Metered
from ensemble_svc.search.climbing import climbed, ladder_of
from ensemble_svc.search.rounds import explored
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.lock import sole_driver
from ensemble_svc.store.run import Run
from ensemble_svc.tracking.check import check_tracker
from ensemble_svc.tracking.reporter import reporting
from ensemble_svc.train.assemble import check_networks
from ensemble_svc.train.start import fit_own


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run: Run
    shortfall: QuorumError | None
    """Fewer members finished than ``ensemble.quorum`` asks, and why."""


def train(
    job: JobSpec,
    *,
    out: Path | None,
    directory: Path,
    executor: Executor,
    listener: Listener | None = None,
    read: DataSets | None = None,
) -> Run:
    """Train what is not yet sealed, then combine, measure and report; the same call again goes on.

    Args:
        out: the run folder; ``compute.storage/name`` when absent.
        directory: where relative paths and the user's own modules are looked up.
        read: data sets that were read already.

    Raises:
        QuorumError: fewer members finished than ``ensemble.quorum`` asks; the run folder says which.
        EnsembleSvcError: a job, data, folder or cluster that someone has to mend first.
    """
    folder = out or Path(job.compute.storage).expanduser() / job.name
    (outcome,) = train_together(
        {folder: job}, directory=directory, executor=executor, listener=listener, read=read
    )
    if outcome.shortfall is not None:
        raise outcome.shortfall
    return outcome.run


def train_together(
    jobs: Mapping[Path, JobSpec],
    *,
    directory: Path,
    executor: Executor,
    listener: Listener | None = None,
    read: DataSets | None = None,
) -> tuple[Outcome, ...]:
    """Train several jobs, each in its run folder, their slots side by side on one executor.

    A run whose slots are done is finished while others train. One that falls short of its quorum says so
    in its outcome and holds up no other. A fault that ends the executor's run (a full disk, a lost
    cluster, Ctrl-C) leaves finished runs finished; the same call again goes on with the rest.

    Returns:
        One outcome for each job, in order.

    Raises:
        EnsembleSvcError: as ``train``; a job, its data or its folder that is refused is refused
            before any of them begins.
    """
    listener, resources = listener or Listener(), executor.resources()
    executor = Metered(executor)
    ready = _prepare_all(jobs, directory, _share(resources, len(jobs)), read or DataSets())
    with ExitStack() as locks:
        for one in ready:
            locks.enter_context(sole_driver(one.run.path))
        for one in ready:
            with _told_of(one.run.path, alone=len(ready) == 1):
                one.check()
        trackers = {one.run.path: one.job.compute.track for one in ready}
        reporter = locks.enter_context(reporting(trackers, listener.noted))
        ready = [replace(one, reporter=reporter) for one in ready]
        alone = len(ready) == 1
        courses = [_begin(one, directory, executor, listener, alone=alone) for one in ready]
        warnings = dict.fromkeys(chain.from_iterable(one.prepared.warnings for one in ready))
        whole = Plan(slots=tuple(chain.from_iterable(c.left.slots for c in courses)))
        listener.planned(with_forecast(whole, resources), [*warnings])
        for some in _apart(courses):
            _train(some, executor, listener)
    return tuple(Outcome(course.run, course.shortfall()) for course in courses)


def _begin(ready: Ready, directory: Path, executor: Executor, listener: Listener, *, alone: bool) -> Course:
    """Record the start, mend the folder, time a few steps of a long run, and train a search up to its last rung.

    Args:
        alone: whether no other run begins with it.
    """
    ready.begin(directory)
    mend(ready.run)
    if ready.found is not None:
        listener.found(ready.found.largest)
    ready = explored(ready, executor, listener)
    with ready.clock.stage("measure"):
        plan = plan_measured(
            ready.run, ready.job, ready.prepared, ready.plan, executor, tell=listener.measuring
        )
    ready = replace(ready, plan=plan)
    left = ready.left(plan.slots, executor.resources())
    if alone and left.slots and _must_climb(ready):
        expect(ready.run.journal, left, sum(1 for _ in plan.members))
    return climbed(ready, executor, listener)


def _must_climb(ready: Ready) -> bool:
    """Whether trials are ranked at rungs, up to which they train before the run's course is known."""
    return ladder_of(ready) is not None


def _prepare_all(
    jobs: Mapping[Path, JobSpec], directory: Path, resources: Resources, read: DataSets
) -> list[Ready]:
    ready = []
    for folder, job in jobs.items():
        with _told_of(folder, alone=len(jobs) == 1):
            ready.append(_prepare(job, folder, directory, resources, read))
    return ready


def _prepare(job: JobSpec, folder: Path, directory: Path, resources: Resources, read: DataSets) -> Ready:
    _refuse_url(folder)
    check_tracker(job)
    clock = Clock()
    with clock.stage("data"):
        prepared = prepare(job, directory, read=read)
        check_foreign(job, prepared.schema, directory)
    with clock.stage("find_lr"):
        known = settled(job, prepared, folder)
    with clock.stage("plan"):
        plan = make_plan(known.job, prepared, resources, measured_in(folder))
        check_networks(plan.members, prepared.schema)
    return Ready(Run(folder), known.job, job, prepared, plan, clock, known.found)


def _refuse_url(path: Path) -> None:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise StoreError(
            f"{path}: a run folder is a local or shared path; object stores are not supported yet"
        )


@contextmanager
def _told_of(folder: Path, *, alone: bool) -> Iterator[None]:
    """Name the run in what is said against it, where there are several."""
    try:
        yield
    except EnsembleSvcError as fault:
        if not alone:
            fault.args = (f"{folder.name}: {fault}",)
        raise


def _share(resources: Resources, num_runs: int) -> Resources:
    """What one of several runs may count on: its part of the cores, on the same machines."""
    return replace(resources, cpus=max(1, resources.cpus // num_runs))


def _apart(courses: Sequence[Course]) -> list[list[Course]]:
    """The courses in rounds, so that no two of a round hold the same pack.

    Runs that differ in what alters no member (how they are measured, say) have the same packs.
    """
    rounds: list[tuple[set[str], list[Course]]] = []
    for course in courses:
        packs = {slot.pack.id for slot in course.left.slots}
        free = next((some for some in rounds if not some[0] & packs), None)
        if free is None:
            rounds.append(free := (set(), []))
        free[0].update(packs)
        free[1].append(course)
    return [some for _, some in rounds]


def _train(courses: Sequence[Course], executor: Executor, listener: Listener) -> None:
    """Train the slots of all courses; finish each course when its own are done."""
    desk = _Desk(courses, listener)
    desk.finish_ended()
    slots = tuple(chain.from_iterable(course.left.slots for course in courses))
    if slots:
        payloads = {pack: payload for course in courses for pack, payload in course.payloads.items()}
        races = [race for course in courses for race in course.races]
        try:
            (executor.racing(races) if races else executor).run(
                slots, fit_own, payloads, on_progress=desk.progress, on_failure=desk.failure
            )
        except EnsembleSvcError:
            desk.finish_sealed()
            raise
    desk.finish_all()


class _Desk:
    """Hands each slot's news to its run and to the listener, and finishes runs whose slots are done."""

    def __init__(self, courses: Sequence[Course], listener: Listener) -> None:
        self._listener, self._began = listener, time.monotonic()
        self._by_pack = {slot.pack.id: course for course in courses for slot in course.left.slots}
        self._open = {course: {slot.pack.id for slot in course.left.slots} for course in courses}
        self._closing: dict[str, Slot] = {}
        self._lone = len(courses) == 1 and bool(courses[0].left.slots)
        if self._lone and not _must_climb(courses[0].ready):
            expect(courses[0].run.journal, courses[0].left, sum(1 for _ in courses[0].whole.members))

    def progress(self, slot: Slot, progress: Progress) -> None:
        """A pack has ended an epoch; after its last one it is sealed, which is no event of its own."""
        self._by_pack[slot.pack.id].heard(progress)
        self._listener.progress(slot, progress)
        if len(self._open) > 1:
            self.finish_sealed()
        if progress.epoch >= progress.epochs or all(m.status != "training" for m in progress.members):
            self._closing[slot.pack.id] = slot

    def failure(self, slot: Slot, reason: str, again: bool) -> None:
        """An attempt at a slot has failed."""
        course = self._by_pack[slot.pack.id]
        course.failed(slot, reason, again)
        self._listener.failure(slot, reason, again)
        if not again and course in self._open:
            self._open[course].discard(slot.pack.id)
            self.finish_ended()

    def finish_sealed(self) -> None:
        """Finish runs that wait for no other pack than those that were sealed since they were last seen."""
        for pack, slot in list(self._closing.items()):
            course = self._by_pack[pack]
            if course.has_sealed(slot):
                del self._closing[pack]
                if course in self._open:
                    self._open[course].discard(pack)
        self.finish_ended()

    def finish_ended(self) -> None:
        """Finish runs that wait for no pack."""
        for course in [course for course, packs in self._open.items() if not packs]:
            self._finish(course)

    def finish_all(self) -> None:
        """Finish every run that is not finished yet: no slot trains any more."""
        for course in list(self._open):
            self._finish(course)

    def _finish(self, course: Course) -> None:
        del self._open[course]
        train_s = time.monotonic() - self._began
        if self._lone:
            took(course.run.journal, train_s + course.ready.clock.seconds.get("rungs", 0.0))
        course.finish(train_s=train_s)
        course.track()
        self._listener.finished(course.run)
