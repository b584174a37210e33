"""A first guess of a pack's seconds and memory, from the size of its network.

The constants are those of this kind of machine: two cores, torch 2.13, Lightning 2.6. They were fitted to
the tables that ``ensemble-svc plan JOB --measure`` prints. On other machines the formula tells minutes
from hours, not more; that is what measuring is for.
"""

from __future__ import annotations

from ensemble_svc.plan.cost import Size, Work
from ensemble_svc.plan.measurement import Device, Timing
from ensemble_svc.plan.strands import strands

STEP_S = 4e-4
"""Seconds of a step that do not depend on the network: the loop, the optimiser's call."""
OPERATION_S = 1.5e-5
"""Seconds that an operation and its gradient cost before they compute anything."""
DENSE_RATE = 3.5e10
"""Multiply-adds per second of one core in matrix products."""
CONV_RATE = 3e10
"""The same in convolutions."""
ACTIVATION_S = 1.8e-9
"""Seconds of one core per number that an operation puts out, its gradient included."""
IMAGE_ACTIVATION_S = 3.5e-9
"""The same in a convolutional network, whose activations leave the core's caches."""
ROW_S = 2e-7
"""Seconds of one core per row: its gathering, its loss."""
PARAMETER_S = 1.5e-9
"""Seconds of one core per parameter and step: the optimiser, the averages."""
VALIDATION = 2.0
"""A validation row's forward pass in thirds of a training row: its batches are large and leave the cache."""
MORE_THREADS = 0.5
"""What each core after the first adds to the first one's speed in the operations that they share."""
GPU_SPEED = 300.0
"""One GPU in cores of such a CPU; a guess."""
PROCESS_BYTES = 450 * 2**20
"""A process with torch and Lightning loaded."""


def member_seconds(work: Work) -> float | None:
    """Seconds that the arithmetic of one member's step takes one core; None for a network of unknown size."""
    if work.size is None:
        return None
    return work.batch * _row_seconds(work.size) + work.size.parameters * PARAMETER_S


def formula(work: Work, members: int, threads: int, device: Device) -> Timing | None:
    """What the formula says of a pack; None for a network of unknown size."""
    size, member_s = work.size, member_seconds(work)
    if size is None or member_s is None or work.member_bytes is None:
        return None
    core_s, in_turn = members * member_s, size.conv_products > 0
    own_s = STEP_S + size.operations * OPERATION_S
    member_bytes, fixed_bytes = work.member_bytes, work.data_bytes
    if device == "cuda":
        step_s, speed = own_s + core_s / GPU_SPEED, GPU_SPEED
    else:
        number, each = strands(core_s, members, threads, in_turn=in_turn)
        turns = members if in_turn else number
        largest = -(-members // number) / members
        step_s = turns * own_s + core_s * largest / _sharing(each)
        speed = _sharing(threads)
        fixed_bytes += PROCESS_BYTES
        if in_turn and members > 1:
            member_bytes, fixed_bytes = member_bytes - work.step_bytes, fixed_bytes + number * work.step_bytes
    return Timing(
        members=members,
        threads=threads,
        at_once=1,
        step_s=step_s,
        epoch_s=work.num_validation * members * _row_seconds(size) * VALIDATION / 3 / speed,
        member_bytes=member_bytes,
        fixed_bytes=fixed_bytes,
        device=device,
    )


def _row_seconds(size: Size) -> float:
    products_s = size.dense_products / DENSE_RATE + size.conv_products / CONV_RATE
    each_s = IMAGE_ACTIVATION_S if size.conv_products else ACTIVATION_S
    return 3 * products_s + size.activations * each_s + ROW_S


def _sharing(threads: int) -> float:
    """How much faster so many cores that share each operation are than one."""
    return 1 + MORE_THREADS * (threads - 1)
