"""Measuring before a long run: a few real steps where the slots would run, and the plan made from them.

The timings are kept in the run's journal, so that the same members on the same machines are never
measured twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from ensemble_svc.errors import ClusterError
from ensemble_svc.plan.executor import Call, Executor, Resources
from ensemble_svc.plan.forecast import with_forecast
from ensemble_svc.plan.groups import Group, groups_of
from ensemble_svc.plan.measurement import Device, Measured, Timing, sizes_to_time
from ensemble_svc.plan.plan import Plan
from ensemble_svc.plan.rooms import device_of
from ensemble_svc.planning import Prepared, bag_sizes, data_shape, make_plan, measured_in, trained_by
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.run import Run
from ensemble_svc.train.payload import Payload
from ensemble_svc.train.start import Load, Probe

LONG_RUN_S = 60.0
"""Forecasts above it are worth measuring for."""
LONG_RUN_ROWS = 5_000_000
"""Rows x epochs x members above which a network of unknown size is."""
BUDGET_S = 10.0
"""Seconds of measuring at most, the start of processes apart."""
BUDGET_SHARE = 0.1
"""And at most this share of the forecast, but for the least that tells anything."""
LEAST_BUDGET_S = 5.0
COMPILE_WORTH_S = 1200.0
"""Seconds of a group's training below which it is not tried whether compiled steps are faster: compiling takes
a minute or more on a CPU."""
MOST_GROUPS = 4
"""Structures that are measured, the most expensive first; the others borrow their timings."""
MOST_WORKERS = 16
"""Processes that are timed beside each other at most."""
GPU_SHARES = 2
"""Processes that are timed beside each other on one GPU."""


def plan_measured(
    run: Run,
    job: JobSpec,
    prepared: Prepared,
    plan: Plan,
    executor: Executor,
    *,
    tell: Callable[[float], None],
) -> Plan:
    """The plan, made anew from measurements where a long run is ahead; call it under the run's lock.

    Members whose packs have begun stay where they are, so only for others it is measured.

    Args:
        tell: called with the budget in seconds before anything is measured.
    """
    known = measured_in(run.path)
    fresh = with_forecast(_fresh(run.journal, plan), executor.resources())
    if not fresh.slots or not is_wanted(job, fresh, prepared):
        return plan
    tell(budget(fresh))
    try:
        found = measure(job, prepared, executor, budget_s=budget(fresh))
    except ClusterError as lost:
        run.journal.append("unmeasured", reason=str(lost))
        return plan
    run.journal.append("measured", table=found.model_dump_json())
    return make_plan(job, prepared, executor.resources(), known.joined(found))


def is_wanted(job: JobSpec, plan: Plan, prepared: Prepared) -> bool:
    """Whether the plan's members should be measured: by the job's word, or since they will take long."""
    if job.search is not None and job.search.races:
        return False  # where its trials train is settled
    if job.compute.measure != "auto":
        return job.compute.measure == "on" and not _all_measured(plan)
    if plan.forecast is not None:
        return plan.forecast.by == "formula" and plan.forecast.seconds > LONG_RUN_S
    rows = sum(m.training.epochs for m in plan.members) * len(prepared.split.train)
    return not _all_measured(plan) and rows > LONG_RUN_ROWS


def budget(plan: Plan) -> float:
    """Seconds that measuring may take before such a plan."""
    if plan.forecast is None:
        return BUDGET_S
    return max(LEAST_BUDGET_S, min(BUDGET_S, BUDGET_SHARE * plan.forecast.seconds))


def _all_measured(plan: Plan) -> bool:
    return all(slot.forecast is not None and slot.forecast.by == "measured" for slot in plan.slots)


def _fresh(journal: Journal, plan: Plan) -> Plan:
    """The slots that hold a member which has not begun."""
    events = journal.of_kind("commit", "sealed")
    begun = {digest for event in events for digest in event.get("members") or [event["digest"]]}
    slots = (s for s in plan.slots if not all(member.digest in begun for member in s.pack.members))
    return plan.model_copy(update={"slots": tuple(slots)})


def measure(job: JobSpec, prepared: Prepared, executor: Executor, *, budget_s: float) -> Measured:
    """Time members and packs of every structure, alone and beside each other, where slots would run.

    Args:
        budget_s: wall seconds in all, the start of processes apart.

    Raises:
        ClusterError: no room, or the cluster was lost.
    """
    resources = executor.resources()
    groups = _groups(job, prepared, resources)
    device = device_of(job.compute, resources)
    widest = max(resources.machines, key=lambda node: (node.gpus, node.cpus))
    beside = min(_most_beside(groups, resources, device), MOST_WORKERS)
    payload = Payload(prepared.dataset, prepared.split, prepared.schema, "", job.compute.commit_every_s)
    cpus = max(1, widest.cpus // (beside if device == "cpu" else max(beside, int(widest.gpus))))
    gpus = 1 / beside if device == "cuda" else 0.0
    with executor.workers(beside, payload, cpus=cpus, gpus=gpus) as call:
        gpu_bytes = call([Load()] * beside)[0]
        compiles = job.compute.compile == "auto"
        bench = Bench(call, device, widest.cpus if device == "cpu" else cpus, beside, compiles=compiles)
        each_s = budget_s / len(groups)
        return Measured(groups={g.key: bench.measured(g, each_s) for g in groups}, device_bytes=gpu_bytes)


def _groups(job: JobSpec, prepared: Prepared, resources: Resources) -> list[Group]:
    """The structures to measure, the most expensive first."""
    members = trained_by(job, prepared)
    sizes, shape = bag_sizes(members, prepared), data_shape(job, prepared)
    found = {g.key: g for g in groups_of(members, sizes, job.compute, resources, shape=shape)}
    ordered = sorted(found.values(), key=lambda g: -len(g.members) * g.work.steps * g.work.epochs)
    return ordered[:MOST_GROUPS]


def _most_beside(groups: Sequence[Group], resources: Resources, device: Device) -> int:
    """Slots that would train beside each other on one machine, or on one GPU."""
    members = sum(len(group.members) for group in groups)
    machine = max(resources.machines, key=lambda node: (node.gpus, node.cpus))
    if device == "cuda":
        shares = min(GPU_SHARES, machine.cpus // max(1, int(machine.gpus)))
        return max(1, min(shares, members, resources.at_once or members))
    return max(1, min(machine.cpus, members, resources.at_once or members))


@dataclass(frozen=True)
class Bench:
    """Workers that time packs."""

    call: Call[Payload]
    device: Device
    cores: int
    """Of the machine; with a GPU those of one worker."""
    beside: int
    """Workers at the same time."""
    compiles: bool = False
    """Whether it is open if steps are compiled."""

    def measured(self, group: Group, budget_s: float) -> tuple[Timing, ...]:
        """One structure: packs of growing size alone, then beside each other, then compiled where it may pay."""
        found = self._plain(group, budget_s)
        if not found or not self.compiles:
            return found
        best = min(found, key=lambda timing: timing.step_s / (timing.members * timing.at_once))
        lanes = best.members * best.at_once
        if group.work.epochs * group.work.steps * best.step_s * len(group.members) / lanes < COMPILE_WORTH_S:
            return found
        probe = (best.members,), (best.threads,), budget_s, best.at_once
        return (*found, *self._timed(group, *probe, compiled=True))

    def _plain(self, group: Group, budget_s: float) -> tuple[Timing, ...]:
        end = time.monotonic() + budget_s
        largest = min(group.largest, len(group.members))
        threads = tuple(sorted({1, self.cores})) if self.device == "cpu" else (self.cores,)
        alone_s = budget_s * (0.6 if self.beside > 1 else 1.0)
        found = list(self._timed(group, sizes_to_time(largest), threads, alone_s, 1))
        if self.beside == 1 or not found:
            return tuple(found)
        sizes = _sizes_beside(found, largest, self.beside, len(group.members))
        for position, size in enumerate(sizes):
            left = max(0.0, end - time.monotonic()) / (len(sizes) - position)
            found += self._timed(group, (size,), threads[:1], left, self.beside)
        return tuple(found)

    def _timed(
        self,
        group: Group,
        sizes: tuple[int, ...],
        threads: tuple[int, ...],
        seconds: float,
        beside: int,
        *,
        compiled: bool = False,
    ) -> list[Timing]:
        """Timings of ``beside`` workers at the same time, the mean over them."""
        probe = Probe(group.members[: max(sizes)], sizes, threads, self.device, seconds, compiled)
        runs = self.call([probe] * beside)
        return [_mean(same, beside) for same in zip(*runs, strict=False)]


def _sizes_beside(alone: Sequence[Timing], largest: int, beside: int, members: int) -> tuple[int, ...]:
    """Packs that are worth timing beside each other: one member, and the group's share of each worker."""
    packs = max(timing.members for timing in alone) > 1
    share = min(largest, -(-members // beside))
    return (1, share) if packs and share > 1 else (1,)


def _mean(timings: Sequence[Timing], beside: int) -> Timing:
    means = {name: fmean(getattr(t, name) for t in timings) for name in ("step_s", "epoch_s")}
    return timings[0].model_copy(update={**means, "at_once": beside})


def expect(journal: Journal, plan: Plan, num_members: int) -> None:
    """Note what the plan is expected to take, before it is trained.

    Args:
        num_members: of the run as far as it is known: by it the rounds of a search are told apart.
    """
    expected = None if plan.forecast is None else plan.forecast.model_dump(mode="json")
    journal.append("forecast", forecast=expected, members=num_members)


def took(journal: Journal, seconds: float) -> None:
    """Note what the training took, once its last slot has ended."""
    journal.append("trained", seconds=seconds)
