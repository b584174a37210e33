"""How often Python looks for what nothing refers to any more: rarely, since a third of the loading went into it.

Torch, Lightning and Ray are a million objects that stay for as long as the process does. With the interpreter's own
settings they are looked through again and again while they load, and once more at its end.
"""

from __future__ import annotations

import gc

ALLOCATIONS = 50_000
"""Objects more than before at which the young ones are looked through; Python's own number is 700."""


def collect_seldom() -> None:
    """Let the process look through its objects at a larger number of new ones; it still does."""
    gc.set_threshold(max(ALLOCATIONS, gc.get_threshold()[0]), *gc.get_threshold()[1:])


def leave_the_rest() -> None:
    """To be called where the process ends: its memory goes as a whole, so nothing in it has to be found."""
    gc.freeze()
