"""A process whose address space ends a little above what it has: a pack that does not fit there is halved.

python limited_memory.py RUN
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch
from law_runs import job_of, payload_of

from ensemble_svc.train.fit import fit

ROOM = 96 * 2**20
"""Bytes above what the process holds when training begins: enough for half of the pack."""


def main(run: Path) -> None:
    """Train sixteen wide members as one pack within the limit."""
    job = job_of(
        model={"name": "mlp", "hidden": (512, 512)},
        training={"epochs": 2, "batch_size": 64},
        ensemble__members=16,
    )
    payload, plan = payload_of(job, run)
    one = plan.slots[0].pack.members[0]
    torch.set_num_threads(1)
    warm = job_of(ensemble__members=2)
    other, small = payload_of(warm, run / "warm")
    fit(other, small.slots[0], lambda progress: None)
    assert one.training.epochs == 2
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    held = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + ROOM, resource.RLIM_INFINITY))
    fit(payload, plan.slots[0], lambda progress: None)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
