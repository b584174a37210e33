"""The placement of members that were not measured, by rules of thumb and the formulas of their cost.

Members of one structure share packs, one to a machine or to a GPU: strands use the cores of a machine
(``plan/strands.py``), and a pack shares the data and the start of the process.
"""

from __future__ import annotations

from collections.abc import Sequence

from ensemble_svc.plan.candidates import even
from ensemble_svc.plan.executor import Resources
from ensemble_svc.plan.forecast import slot_of
from ensemble_svc.plan.formula import formula
from ensemble_svc.plan.groups import Group
from ensemble_svc.plan.plan import Pack, Slot
from ensemble_svc.plan.rooms import Room, cpu_room, device_of, gpu_room
from ensemble_svc.spec.job import ComputeSpec

GPU_BYTES = 8 * 2**30
"""A GPU is taken to have as much memory when its own is not known."""
CONTEXT_BYTES = 2**30
"""What a process takes of a GPU before it holds anything."""
WHY_ALONE = "a network of your own trains alone unless compute.pack says how many"
WHY_WHOLE = "trials that are compared with each other while they train share one pack"
SHARES = 4
"""Members alone that share one GPU at most, when nothing was measured."""


def place_by_rule(groups: Sequence[Group], compute: ComputeSpec, resources: Resources) -> list[list[Slot]]:
    """The slots of each group."""
    on_gpu = device_of(compute, resources) == "cuda"
    cuts = [_cut(group, compute, resources, on_gpu=on_gpu) for group in groups]
    num_packs = sum(len(sizes) for sizes, _ in cuts)
    return [
        _slots(group, sizes, reason, _room(group, sizes[0], num_packs, compute, resources, on_gpu=on_gpu))
        for group, (sizes, reason) in zip(groups, cuts, strict=True)
    ]


def _cut(
    group: Group, compute: ComputeSpec, resources: Resources, *, on_gpu: bool
) -> tuple[tuple[int, ...], str]:
    """Sizes of the group's packs, and why."""
    number, model = len(group.members), group.members[0].model
    if (processes := compute.processes(on_gpu=on_gpu)) > 1:
        return even(number, number), f"{processes} processes share each batch of a member"
    if number == 1:
        return (1,), "the only member of its structure"
    if group.whole and (on_gpu or _held(group, resources) >= number):
        return (number,), WHY_WHOLE
    if group.largest == 1 and compute.pack == "off":
        return even(number, number), "compute.pack is off"
    if compute.pack == "auto" and not model.packs_unasked:
        return even(number, number), WHY_ALONE
    most, reason = group.largest, "one structure, so one stack of weights, one copy of the data, one process"
    if isinstance(compute.pack, int):
        reason = f"compute.pack allows {compute.pack} members at once"
    held = number if on_gpu else _held(group, resources)
    if held < min(most, number):
        most, reason = held, f"memory holds {held} members at once"
    devices = int(resources.gpus) if on_gpu else len(resources.machines)
    devices = min(devices, resources.at_once or devices)
    packs = max(-(-number // most), min(number, devices))
    return even(number, packs), reason


def _held(group: Group, resources: Resources) -> int:
    """Members whose training the smallest machine's memory holds, by formula."""
    known = [node.memory_bytes for node in resources.machines if node.memory_bytes]
    cores = max(node.cpus for node in resources.machines)
    guess = formula(group.work, len(group.members), cores, "cpu")
    if not known or guess is None:
        return len(group.members)
    return max(1, int((0.9 * min(known) - guess.fixed_bytes) / guess.member_bytes))


def _room(
    group: Group, largest: int, num_packs: int, compute: ComputeSpec, resources: Resources, *, on_gpu: bool
) -> Room:
    """Slots for the group's packs, when there are ``num_packs`` in all."""
    processes = compute.processes(on_gpu=on_gpu)
    if on_gpu and processes > 1:
        return gpu_room(1, float(processes), compute, resources, None)
    if on_gpu:
        share = 1.0 if largest > 1 else _share(group, num_packs, compute, resources)
        return gpu_room(1, share, compute, resources, None)
    widest = max(node.cpus for node in resources.machines)
    cpus = min(widest, max(processes, resources.cpus // min(num_packs, resources.at_once or num_packs)))
    if compute.cpus_per_slot != "auto":
        cpus = compute.cpus_per_slot
    return cpu_room(cpus, cpus, resources) or Room(cpus, cpus, 1, 1)


def _share(group: Group, num_packs: int, compute: ComputeSpec, resources: Resources) -> float:
    """GPUs of a member alone: several share one where their memory is known to be small."""
    if compute.gpus_per_member != "auto":
        return compute.gpus_per_member
    each, cores = -(-num_packs // int(resources.gpus)), int(resources.cpus // resources.gpus)
    held = 1
    if group.work.member_bytes:
        held = int(GPU_BYTES / (CONTEXT_BYTES + group.work.data_bytes + group.work.member_bytes))
    return 1 / max(1, min(each, cores, held, SHARES, resources.at_once or SHARES))


def _slots(group: Group, sizes: Sequence[int], reason: str, room: Room) -> list[Slot]:
    slots, left = list[Slot](), list(group.members)
    timings = {size: formula(group.work, size, room.threads, room.device) for size in set(sizes)}
    for size in sizes:
        pack, left = Pack(members=tuple(left[:size])), left[size:]
        slots.append(slot_of(pack, room, reason, group.work, timings[size], measured=False))
    return slots
