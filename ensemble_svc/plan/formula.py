"""A first guess of a pack's seconds and memory, from the size of its network.

The constants are those of this kind of machine: two cores, torch 2.13, Lightning 2.6. They were fitted to
the tables that ``ensemble-svc plan JOB --measure`` prints. On other machines the formula tells minutes
from hours, not more; that is what measuring is for.
"""

from __future__ import annotations

from ensemble_svc.plan.cost import Work
from ensemble_svc.plan.measurement import Device, Timing

STEP_S = 6e-4
"""Seconds of a step that do not depend on the network: the training loop, the optimiser's call."""
OPERATION_S = 4e-5
"""Seconds that an operation and its gradient cost before they compute anything."""
DENSE_RATE = 6e10
"""Multiply-adds per second of one core in matrix products."""
CONV_RATE = 1e11
"""The same in convolutions."""
ACTIVATION_S = 1.8e-9
"""Seconds of one core per number that an operation puts out, its gradient included."""
PARAMETER_S = 1.5e-9
"""Seconds of one core per parameter and step: the optimiser, the averages."""
PACKED_CONV = 1.6
"""How much longer a convolutional network takes in a pack on a CPU, where it is a grouped convolution."""
VALIDATION = 2.0
"""A validation row's forward pass in thirds of a training row: its batches are large and leave the cache."""
MORE_THREADS = 0.5
"""What each core after the first adds to the first one's speed."""
GPU_SPEED = 300.0
"""One GPU in cores of such a CPU; a guess."""
PROCESS_BYTES = 450 * 2**20
"""A process with torch and Lightning loaded."""


def formula(work: Work, members: int, threads: int, device: Device) -> Timing | None:
    """What the formula says of a pack; None for a network of unknown size."""
    size = work.size
    if size is None or work.member_bytes is None:
        return None
    speed = GPU_SPEED if device == "cuda" else 1 + MORE_THREADS * (threads - 1)
    grouped = PACKED_CONV if members > 1 and size.conv_products and device == "cpu" else 1.0
    products_s = size.dense_products / DENSE_RATE + size.conv_products / CONV_RATE
    row_s = members * grouped * (3 * products_s + size.activations * ACTIVATION_S) / speed
    update_s = members * size.parameters * PARAMETER_S / speed
    return Timing(
        members=members,
        threads=threads,
        at_once=1,
        step_s=STEP_S + size.operations * OPERATION_S + work.batch * row_s + update_s,
        epoch_s=work.num_validation * row_s * VALIDATION / 3,
        member_bytes=work.member_bytes,
        fixed_bytes=work.data_bytes + (PROCESS_BYTES if device == "cpu" else 0),
        device=device,
    )
