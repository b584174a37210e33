"""One value for several processes of this machine, its arrays lying in memory once for all of them."""

from __future__ import annotations

import mmap
import os
import pickle
from dataclasses import dataclass
from typing import Any

ALIGNMENT = 64


@dataclass(frozen=True)
class Handover:
    """A value in anonymous memory; whoever inherits the descriptor can read it."""

    descriptor: int
    sizes: tuple[int, ...]
    """Bytes of the pickle, and of each array that it leaves outside itself."""


def lay_down(value: Any) -> Handover:
    """Write ``value`` to new memory, which lasts until the last of its descriptors is closed."""
    outside: list[pickle.PickleBuffer] = []
    body = pickle.dumps(value, protocol=5, buffer_callback=outside.append)
    parts = [memoryview(body), *(buffer.raw() for buffer in outside)]
    descriptor = os.memfd_create("ensemble-svc")
    with open(descriptor, "wb", closefd=False) as file:
        for part in parts:
            file.write(part)
            file.write(bytes(-part.nbytes % ALIGNMENT))
    return Handover(descriptor, tuple(part.nbytes for part in parts))


def take_up(handover: Handover) -> Any:
    """The value; its arrays are read-only views of the shared memory."""
    memory = memoryview(mmap.mmap(handover.descriptor, 0, prot=mmap.PROT_READ))
    parts, start = [], 0
    for size in handover.sizes:
        parts.append(memory[start : start + size])
        start += size + -size % ALIGNMENT
    return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301  (written by our own parent, seen by no other)
