"""What was measured of members in training: a table of timings, and what lies between its rows.

A timing holds for members of one structure on one kind of machine; ``timing_key`` is the name of that
pair. Pure values with a JSON form, kept in a run's journal.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from typing import Literal

from ensemble_svc import __version__
from ensemble_svc.plan.executor import Resources
from ensemble_svc.registry import Spec

Device = Literal["cpu", "cuda"]


class Timing(Spec):
    """A pack of some size in training, with as many like it beside it as ``at_once`` says."""

    members: int
    """Members of the pack, K."""
    threads: int
    at_once: int
    """Packs that trained at the same time, each in a process of its own; on a GPU they shared it."""
    step_s: float
    """Wall seconds of one optimiser step of the whole pack, the median."""
    epoch_s: float = 0.0
    """Wall seconds of an epoch apart from its steps: validation."""
    member_bytes: int = 0
    """Memory of each member; 0 where it could not be seen."""
    fixed_bytes: int = 0
    """Memory of the process without its members."""
    device: Device = "cpu"
    compiled: bool = False
    compile_s: float = 0.0
    """Seconds that compiling takes once per slot."""


class Measured(Spec):
    """Timings by key; the same key measured again takes the place of the old."""

    groups: Mapping[str, tuple[Timing, ...]] = {}
    device_bytes: int | None = None
    """Memory of one GPU where it was measured."""

    def of(self, key: str) -> tuple[Timing, ...]:
        """The timings of one structure on one kind of machine; empty when there are none."""
        return self.groups.get(key, ())

    def joined(self, other: Measured) -> Measured:
        """Both tables in one."""
        return Measured(
            groups={**self.groups, **other.groups}, device_bytes=other.device_bytes or self.device_bytes
        )


def timing_key(structure: str, data_hash: str, resources: Resources, device: Device) -> str:
    """Name under which timings are kept: other members, data, machines or versions give another."""
    widest = max(resources.machines, key=lambda node: (node.gpus, node.cpus))
    place = [device, widest.cpus, widest.gpus, resources.at_once]
    return sha256(json.dumps([structure, data_hash, place, _versions()]).encode()).hexdigest()[:16]


@cache
def _versions() -> tuple[str, ...]:
    """Of the packages whose code is timed."""
    return (version("torch"), version("lightning"), __version__)


def between(timings: Sequence[Timing], members: int) -> Timing | None:
    """The timing of a pack of ``members``, from those of smaller and larger packs; None where there are none.

    Seconds and bytes lie on the line between the two neighbours. Beyond the largest pack the seconds
    per member stay as they are there, which no larger pack was seen to beat; below the smallest its
    own timing holds. A member alone is no small pack: it trains another way, so neither tells of the other.

    Args:
        timings: of one number of threads and one ``at_once``.
    """
    alike = [timing for timing in timings if (timing.members == 1) == (members == 1)]
    known = sorted(alike, key=lambda timing: timing.members)
    place = bisect_left([timing.members for timing in known], members)
    if not known:
        return None
    if place == len(known):
        return _scaled(known[-1], members, members / known[-1].members)
    above = known[place]
    if place == 0 or above.members == members:
        return above.model_copy(update={"members": members})
    below = known[place - 1]
    return _mixed(below, above, members, (members - below.members) / (above.members - below.members))


def _scaled(timing: Timing, members: int, factor: float) -> Timing:
    changed = {"step_s": timing.step_s * factor, "epoch_s": timing.epoch_s * factor}
    return timing.model_copy(update={"members": members, **changed})


def _mixed(below: Timing, above: Timing, members: int, share: float) -> Timing:
    names = ("step_s", "epoch_s", "member_bytes", "fixed_bytes", "compile_s")
    ends = {name: (getattr(below, name), getattr(above, name)) for name in names}
    mixed = {name: (1 - share) * low + share * high for name, (low, high) in ends.items()}
    whole = {name: round(value) if name.endswith("bytes") else value for name, value in mixed.items()}
    return above.model_copy(update={"members": members, **whole})


def sizes_to_time(largest: int) -> tuple[int, ...]:
    """1, 2, 4, … and ``largest`` itself."""
    return (*(2**i for i in range(largest.bit_length()) if 2**i < largest), largest)
