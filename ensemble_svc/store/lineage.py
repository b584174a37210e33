"""The values by which a member trains, where they change meanwhile: a population's members take over others' state.

A ``lineage`` is one entry a turn, in order: ``epoch`` after which, ``from`` whose state by id, ``values`` by which it
went on. A member that had no turn has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def in_force(began: Mapping[str, Any], taken: Mapping[str, Any]) -> dict[str, Any]:
    """By what a member trains now, by dotted path.

    Args:
        began: what it varied from the first epoch on.
        taken: by what it went on after its last turn; empty where it had none.
    """
    return {**began, **taken}


def settings_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What stands beside a member's final metrics: the values that it trained with in the end.

    Args:
        entry: of the manifest, or as ``status`` tells it.
    """
    return in_force(entry.get("hyperparameters") or {}, last_taken(entry.get("lineage") or ()))


def last_taken(lineage: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The values of the last turn; empty where there is none."""
    values: Mapping[str, Any] = lineage[-1]["values"] if lineage else {}
    return values


def changed_words(entries: Sequence[Mapping[str, Any]]) -> str:
    """One line for a page that shows settings of members that changed while they trained; empty where none did."""
    turned = sum(bool(entry.get("lineage")) for entry in entries)
    if not turned:
        return ""
    return (
        f"Settings changed while training: {turned:,} of {len(entries):,} members went on from the state of another. "
        "Shown are the values in force at the end."
    )
