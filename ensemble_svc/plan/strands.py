"""How the cores of a slot are divided among the members of its pack.

A *strand* is one thread that trains some of the members by itself. Strands run beside each other but for
Python's own part of a step, which one does at a time; the cores that share an operation instead meet after
each of them, some fifty times a step. So many small steps are done by one core, and large ones by a strand
on each. Pure arithmetic; the training and the planner's formula both ask here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

INTERPRETER_S = 7e-4
"""Seconds of a step (of one member, where members go in turn) during which other strands may have to wait.
Fitted to steps of networks 64-8-10 to 64-512-512-10, 2 to 64 of them, on batches of 16 to 256: from 1.5 ms of
arithmetic on two strands are faster than one core, and both are always faster than two cores on each operation."""
TOGETHER_S = 3e-3
"""Seconds of arithmetic from which a strand with several cores to itself gains by sharing its operations among
them. Below, the cores' meetings cost more: a step of two networks 64-64-10 took 0.5 ms on one core and 1.2 on two."""


class Strands(NamedTuple):
    """How many strands, and the cores that each has for its operations."""

    number: int
    threads: int


def strands(core_s: float | None, members: int, cores: int, *, in_turn: bool) -> Strands:
    """The division of a pack's members among ``cores``.

    Args:
        core_s: seconds that the arithmetic of a step of all members takes one core; None if unknown.
        in_turn: whether a strand's members go through the step one after another.
    """
    if core_s is None:
        return Strands(1, cores)
    if in_turn:
        worth = 1 + core_s / members / INTERPRETER_S
    else:
        worth = math.sqrt(core_s / INTERPRETER_S)
    number = max(1, min(cores, members, round(worth)))
    each_s = core_s / (members if in_turn else number)
    left = cores // number if number in (1, members) else 1
    return Strands(number, left if each_s >= TOGETHER_S else 1)
