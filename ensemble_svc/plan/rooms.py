"""The machines as slots of one kind see them: how many train at once, and on what."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ensemble_svc.errors import PlanError
from ensemble_svc.plan.executor import Resources
from ensemble_svc.plan.measurement import Device, Timing
from ensemble_svc.spec.job import ComputeSpec


@dataclass(frozen=True)
class Room:
    """Slots of one kind on these machines."""

    threads: int
    """The timings that speak of it are those on so many threads."""
    cpus: int
    """Cores of one slot."""
    lanes: int
    """Slots that train at the same time in all."""
    lanes_each: int
    """Slots that share one machine, or one GPU, when all lanes are busy."""
    gpus: float = 0.0
    memory_bytes: int | None = None
    """Of one machine, or of one GPU; None where it is not known."""
    smallest: int = 1
    largest: int = sys.maxsize
    """Members of a pack that such a slot may take."""

    @property
    def device(self) -> Device:
        """Where it computes."""
        return "cuda" if self.gpus else "cpu"

    def crowd(self, num_slots: int) -> int:
        """Slots beside each other on one machine or GPU when there are ``num_slots`` in all."""
        apart = max(1, self.lanes // self.lanes_each)
        return min(self.lanes_each, -(-num_slots // apart))


def num_devices(compute: ComputeSpec, resources: Resources) -> int:
    """GPUs, or machines where the job's members train on cores.

    Raises:
        PlanError: as ``device_of``.
    """
    on_gpu = device_of(compute, resources) == "cuda"
    return int(resources.gpus) if on_gpu else len(resources.machines)


def device_of(compute: ComputeSpec, resources: Resources) -> Device:
    """Where the job's members train.

    Raises:
        PlanError: a GPU asked for where there is none.
    """
    if compute.device == "cuda" and not resources.gpus:
        raise PlanError("compute.device is cuda, but there is no GPU here; set it to auto or cpu")
    return "cuda" if compute.device != "cpu" and resources.gpus and compute.gpus_per_member != 0 else "cpu"


def rooms(
    timings: Sequence[Timing], compute: ComputeSpec, resources: Resources, *, gpu_bytes: int | None
) -> tuple[Room, ...]:
    """Every kind of slot that the timings speak of and ``compute`` allows.

    Args:
        timings: of one device.
        gpu_bytes: memory of one GPU.
    """
    if any(timing.device == "cuda" for timing in timings):
        return tuple(_gpu_rooms(timings, compute, resources, gpu_bytes))
    return tuple(_cpu_rooms(timings, compute, resources))


def cpu_room(threads: int, cpus: int, resources: Resources) -> Room | None:
    """Slots with so many cores; None where no machine has them."""
    each = [node.cpus // cpus for node in resources.machines]
    lanes = min(sum(each), resources.at_once or sum(each))
    known = [node.memory_bytes for node in resources.machines if node.memory_bytes]
    return Room(threads, cpus, lanes, min(max(each), lanes), 0.0, min(known, default=None)) if lanes else None


def gpu_room(
    threads: int, share: float, compute: ComputeSpec, resources: Resources, gpu_bytes: int | None
) -> Room:
    """Slots with a GPU, or a share of one, and as many cores as there are for each."""
    each = int(1 / share + 1e-9) if share < 1 else 1
    lanes = max(1, int(resources.gpus / max(1.0, share)) * each)
    lanes = min(lanes, resources.at_once or lanes)
    cpus = max(1, resources.cpus // lanes) if compute.cpus_per_slot == "auto" else compute.cpus_per_slot
    return Room(threads, cpus, lanes, min(each, lanes), share, gpu_bytes)


def _cpu_rooms(timings: Sequence[Timing], compute: ComputeSpec, resources: Resources) -> Iterator[Room]:
    counts = sorted({timing.threads for timing in timings})
    pairs = [(threads, threads) for threads in counts]
    if compute.cpus_per_slot != "auto":
        below = [threads for threads in counts if threads <= compute.cpus_per_slot]
        pairs = [(max(below, default=counts[0]), compute.cpus_per_slot)]
    found = (cpu_room(threads, cpus, resources) for threads, cpus in pairs)
    return (room for room in found if room is not None)


def _gpu_rooms(
    timings: Sequence[Timing], compute: ComputeSpec, resources: Resources, gpu_bytes: int | None
) -> Iterator[Room]:
    threads, given = max(timing.threads for timing in timings), compute.gpus_per_member
    if given == "auto":
        for each in sorted({timing.at_once for timing in timings}):
            yield gpu_room(threads, 1 / each, compute, resources, gpu_bytes)
        return
    yield replace(gpu_room(threads, 1.0, compute, resources, gpu_bytes), smallest=2)
    yield replace(gpu_room(threads, given, compute, resources, gpu_bytes), largest=1)
