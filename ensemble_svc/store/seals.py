"""What the journal's seals say of members: which count, what each may be in an ensemble, whether its files are whole.

Nothing here loads torch: those who only look at a run need no tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ensemble_svc.store.atomic import hash_file
from ensemble_svc.store.journal import Event, Journal

Sealed = dict[str, Event]
"""Seal events by member digest."""

FEW = 32
"""Members whose seals are looked for one by one rather than among all."""


def was_cut(facts: Mapping[str, Any], full: int | None = None) -> bool:
    """Whether a finished member was stopped before its training was over, or was never to train so far.

    A scheduler or a budget stops a member and gives a reason; early stopping gives none, and is an end of training
    like another.

    Args:
        full: epochs that members train which are whole, where some are meant to train fewer.
    """
    if facts.get("stopped") and facts.get("reason"):
        return True
    return full is not None and int(facts["spec"]["training"]["epochs"]) < full


def eligible(members: Sequence[Mapping[str, Any]], *, cut: bool, full: int | None = None) -> list[bool]:
    """Which finished members may be in the ensemble.

    Args:
        members: their seals, or their entries in the manifest.
        cut: whether those may that were stopped before their end; where there are no others, they do.
        full: as for ``was_cut``.
    """
    whole = [not was_cut(facts, full) for facts in members]
    return whole if any(whole) and not cut else [True] * len(members)


def candidates(facts: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What a finished member can be in an ensemble as: id → metrics by split, in order.

    Itself, or the snapshots, draws or dropped networks that it stands for: ``<id>#1``, ``<id>#2``, …

    Args:
        facts: its seal, or its entry in the manifest.
    """
    own = str(facts["member"] if "member" in facts else facts["id"])
    virtual = facts.get("virtual") or ()
    if not virtual:
        return {own: facts.get("metrics") or {}}
    return {virtual_id(own, number): metrics for number, metrics in enumerate(virtual, 1)}


def virtual_ids(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """The ids of ``candidates``."""
    return tuple(candidates(facts))


def virtual_id(member: str, number: int) -> str:
    """Id of the ``number``-th candidate that a member stands for, counted from 1."""
    return f"{member}#{number}"


def parted(candidate: str) -> tuple[str, int]:
    """The member's id and the number of a candidate; 0 where it is the member itself."""
    member, _, number = candidate.partition("#")
    return member, int(number or 0)


def sealed(run: Path, only: Iterable[str] | None = None) -> Sealed:
    """The seal events of a run by member digest; the last one counts, and an unsealing undoes it.

    Args:
        only: digests of the members that are asked for, where those are not all.
    """
    wanted = None if only is None else set(only)
    if wanted == set():
        return {}
    needles = [f'"digest": "{digest}"' for digest in wanted] if wanted and len(wanted) <= FEW else ()
    found: Sealed = {}
    for event in Journal(run / "journal.jsonl").of_kind("sealed", "unsealed", holding=needles):
        found.pop(event["digest"], None)
        if event["event"] == "sealed" and (wanted is None or event["digest"] in wanted):
            found[event["digest"]] = event
    return found


def intact(run: Path, event: Event) -> str | None:
    """The first file of a sealed member that is missing or altered, or None."""
    for name, sha in event["files"].items():
        if hash_file(run / name) != sha:
            return str(name)
    return None
