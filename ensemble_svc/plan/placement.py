"""Which members train together, and on what: the placement, with its reasons.

Where the members were measured on these machines, every size of pack in every kind of slot is weighed and
the fastest that fits in memory is taken (``choice.py``). Members that were not measured are placed by
rules of thumb (``rules.py``). What the job's ``compute`` sets is a bound in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from ensemble_svc.errors import PlanError
from ensemble_svc.plan.choice import place_by_measurement
from ensemble_svc.plan.cost import DataShape
from ensemble_svc.plan.executor import Resources
from ensemble_svc.plan.forecast import with_forecast
from ensemble_svc.plan.groups import Group, groups_of
from ensemble_svc.plan.measurement import Measured
from ensemble_svc.plan.plan import MemberSpec, Plan, Slot
from ensemble_svc.plan.rooms import device_of, rooms
from ensemble_svc.plan.rules import place_by_rule
from ensemble_svc.spec.job import ComputeSpec

WHY_A_TRIAL = "one trial, which may be stopped by itself"


def place(
    members: Sequence[MemberSpec],
    num_rows: Mapping[int, int],
    compute: ComputeSpec,
    resources: Resources,
    measured: Measured | None = None,
    *,
    shape: DataShape,
    whole: bool = False,
) -> Plan:
    """Cut the members into packs and give each a slot.

    Args:
        num_rows: training rows of each member, by index.
        measured: timings to choose by; members without any are placed by rule.
        whole: members of one structure share one pack, where their network may and memory holds it.

    Raises:
        PlanError: a GPU where there is none.
    """
    groups = groups_of(members, num_rows, compute, resources, measured, shape=shape)
    if whole:
        groups = [
            replace(group, whole=True, largest=len(group.members)) if group.largest > 1 else group
            for group in groups
        ]
    processes = compute.processes(on_gpu=device_of(compute, resources) == "cuda")
    timed = [group for group in groups if group.timings and processes == 1]
    slots = _measured_slots(timed, compute, resources, measured.device_bytes if measured else None)
    left = [group for group in groups if group.first not in slots]
    slots |= _by_first(left, place_by_rule(left, compute, resources))
    given = {"processes": processes} | (
        {"compile": compute.compile == "on"} if compute.compile != "auto" else {}
    )
    placed = (slot.model_copy(update=given) for group in groups for slot in slots[group.first])
    return with_forecast(Plan(slots=tuple(placed)), resources)


def place_trials(
    members: Sequence[MemberSpec],
    num_rows: Mapping[int, int],
    compute: ComputeSpec,
    resources: Resources,
    seeds: int,
    *,
    shape: DataShape,
) -> Plan:
    """Give each trial of ``seeds`` members a slot, so that it can be stopped by itself.

    Raises:
        PlanError: a GPU where there is none, or members of a trial that cannot share a pack.
    """
    found = groups_of(members, num_rows, compute, resources, shape=shape)
    groups = [
        replace(group, members=tuple(some), whole=True, largest=seeds)
        for group in found
        for _, some in groupby(group.members, key=lambda member: member.index // seeds)
    ]
    if short := [group.first // seeds for group in groups if len(group.members) < seeds]:
        raise PlanError(
            f"trial {min(short)}: its {seeds} members cannot share a pack; set search.seeds_per_trial to 1"
        )
    groups.sort(key=lambda group: group.first)
    given = {"reason": WHY_A_TRIAL, "compile": compute.compile == "on"}
    placed = [
        slot.model_copy(update=given) for slots in place_by_rule(groups, compute, resources) for slot in slots
    ]
    return with_forecast(Plan(slots=tuple(placed)), resources)


def _measured_slots(
    groups: Sequence[Group], compute: ComputeSpec, resources: Resources, gpu_bytes: int | None
) -> dict[int, list[Slot]]:
    """Slots of each group; empty where the timings speak of no placement here."""
    timings = [timing for group in groups for timing in group.timings]
    offered = rooms(timings, compute, resources, gpu_bytes=gpu_bytes) if timings else ()
    found = place_by_measurement(groups, offered)
    return _by_first(groups, found) if found else {}


def _by_first(groups: Sequence[Group], slots: Sequence[list[Slot]]) -> dict[int, list[Slot]]:
    return {group.first: some for group, some in zip(groups, slots, strict=True)}
