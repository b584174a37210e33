"""Which members train together, and on what: the placement, with its reasons.

Rules of thumb until a measurement says otherwise: dense networks gain from a shared pack wherever
they run; on a CPU convolutions in a pack become grouped convolutions and lose, so those members
train alone, one to a core.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from ensemble_svc.errors import PlanError
from ensemble_svc.plan.executor import Resources
from ensemble_svc.plan.plan import MemberSpec, Pack, Plan, Slot
from ensemble_svc.plan.structure import structure
from ensemble_svc.spec.job import ComputeSpec

LARGEST_PACK = 256
"""Members of one pack at most, when the job sets no bound."""


def place(
    members: Sequence[MemberSpec],
    num_rows: Mapping[int, int],
    compute: ComputeSpec,
    resources: Resources,
) -> Plan:
    """Cut the members into packs and give each a slot.

    Args:
        num_rows: training rows of each member, by index.

    Raises:
        PlanError: a GPU where there is none.
    """
    on_gpu = compute.device == "cuda" or (compute.device == "auto" and resources.gpus > 0)
    if on_gpu and resources.gpus == 0:
        raise PlanError("compute.device is cuda, but there is no GPU here; set it to auto or cpu")
    groups = _by_structure(members, num_rows)
    packs = [pack for group in groups for pack in _cut(group, compute, on_gpu)]
    return Plan(
        slots=tuple(_slot(pack, reason, len(packs), compute, resources, on_gpu) for pack, reason in packs)
    )


def _by_structure(members: Sequence[MemberSpec], num_rows: Mapping[int, int]) -> list[list[MemberSpec]]:
    def key(member: MemberSpec) -> str:
        return structure(member, num_rows[member.index])

    ordered = sorted(members, key=lambda m: (key(m), m.index))
    groups = [list(group) for _, group in groupby(ordered, key=key)]
    return sorted(groups, key=lambda group: group[0].index)


def _cut(group: list[MemberSpec], compute: ComputeSpec, on_gpu: bool) -> Iterable[tuple[Pack, str]]:
    size, reason = _pack_size(group, compute, on_gpu)
    for start in range(0, len(group), size):
        yield Pack(members=tuple(group[start : start + size])), reason


def _pack_size(group: list[MemberSpec], compute: ComputeSpec, on_gpu: bool) -> tuple[int, str]:
    model = group[0].model
    if (processes := compute.processes(on_gpu=on_gpu)) > 1:
        return 1, f"{processes} processes share each batch of a member"
    if len(group) == 1:
        return 1, "the only member of its structure"
    if compute.pack == "off":
        return 1, "compute.pack is off"
    if isinstance(compute.pack, int):
        return compute.pack, f"compute.pack allows {compute.pack} members at once"
    if not model.packs(on_gpu=on_gpu):
        return 1, model.why_alone
    return LARGEST_PACK, "one structure, so one stack of weights and one launch per operation"


def _slot(
    pack: Pack, reason: str, num_packs: int, compute: ComputeSpec, resources: Resources, on_gpu: bool
) -> Slot:
    widest = max(machine.cpus for machine in resources.machines)
    processes = compute.processes(on_gpu=on_gpu)
    share = max(processes, resources.cpus // num_packs)
    cpus = min(widest, share) if compute.cpus_per_slot == "auto" else compute.cpus_per_slot
    gpus = _gpus(pack, compute) if on_gpu else 0.0
    return Slot(pack=pack, cpus=cpus, gpus=gpus, reason=reason, processes=processes)


def _gpus(pack: Pack, compute: ComputeSpec) -> float:
    if compute.gpus_per_member == "auto" or len(pack) > 1:
        return float(compute.processes(on_gpu=True))
    return compute.gpus_per_member
