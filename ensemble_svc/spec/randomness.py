"""Where every random number comes from.

A draw is a function of ``(job seed, member index, purpose, counters…)`` and of nothing else, so it
does not change with the number of members, the packing, the executor or the machine, and a
resumed run draws what the undisturbed one would have drawn.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

Purpose = Literal[
    "init",
    "order",
    "resample",
    "augment",
    "dropout",
    "noise",
    "split",
    "bootstrap",
    "select",
    "sample",
    "search",
]


def derive_seed(job_seed: int, member: int, purpose: Purpose, *counters: int) -> int:
    """A 63-bit seed, far from that of every other argument list.

    Args:
        member: index of the member; -1 for draws that belong to the job as a whole.
        counters: epoch, step, … in the order of nesting.
    """
    text = ":".join(map(str, (job_seed, member, purpose, *counters)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def evenly(job_seed: int, member: int, purpose: Purpose, *counters: int) -> float:
    """A number from [0, 1), each as likely; the arguments are those of ``derive_seed``."""
    return (derive_seed(job_seed, member, purpose, *counters) >> 10) / 2**53
