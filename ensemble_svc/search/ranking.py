"""What the journal says of the rungs of a search whose trials are in several packs, and how its trials stand there."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

from ensemble_svc.course import slot_of
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.population import Generations
from ensemble_svc.store.journal import Event, Journal
from ensemble_svc.store.members import Sealed
from ensemble_svc.store.turns import ANEW
from ensemble_svc.train.rungs import lost_for_good


def trial_losses(
    ladder: Ladder | Generations,
    members: Iterable[MemberSpec],
    values: Mapping[str, float],
    seals: Sealed,
    *,
    failed: Collection[str] = (),
    lost: Collection[str] = (),
) -> dict[int, float]:
    """The loss of each trial that is ranked at a rung; not a number where one of its members was lost.

    Args:
        members: of all trials.
        values: the metric of those that wait, by digest.
        failed: digests of those that failed for good on their way here: their trials are ranked too.
        lost: ids of those that failed on their way to an earlier rung.
    """
    found, sick = dict[int, list[float]](), set[int]()
    for member in members:
        trial = ladder.trial(member.index)
        if member.digest in values:
            found.setdefault(trial, []).append(values[member.digest])
        elif member.digest in failed:
            found.setdefault(trial, [])
            sick.add(trial)
        elif member.id in lost or _is_lost(member, seals):
            sick.add(trial)
    return {trial: math.nan if trial in sick else ladder.loss(some) for trial, some in found.items()}


def _is_lost(member: MemberSpec, seals: Sealed) -> bool:
    return member.digest in seals and lost_for_good(member, seals[member.digest]["status"])


def failed_in(journal: Journal, *, before: float = math.inf) -> frozenset[str]:
    """Ids of the members whose last attempt has failed for good, and that were not placed anew since.

    Args:
        before: failures at that time or later, seconds since 1970, are left out.
    """
    last = dict[str, float]()
    for event in journal.of_kind("plan", "start", "failed"):
        if event["event"] == "failed":
            last |= dict.fromkeys(event["members"], event["time"])
            continue
        names = event["members"] if event["event"] == "start" else _planned(event)
        for name in names:
            last.pop(name, None)
    return frozenset(name for name, when in last.items() if when < before)


def _planned(event: Event) -> list[str]:
    return [member.id for text in event["slots"] for member in slot_of(text).pack.members]


def decided(journal: Journal) -> tuple[dict[str, int], dict[str, int]]:
    """The epoch of the last rung that each member has passed, and of the one at which it stopped."""
    reached, out = dict[str, int](), dict[str, int]()
    for event in journal.of_kind("rung", ANEW):
        if event["event"] == ANEW:
            reached |= dict.fromkeys(event["members"], 0)
            continue
        reached |= dict.fromkeys(event["on"], event["epoch"])
        out |= dict.fromkeys(event["out"], event["epoch"])
    return reached, out


def paused(journal: Journal, rung: int) -> Mapping[str, float]:
    """How each member did that has come to a rung."""
    found: dict[str, float] = {}
    for event in journal.of_kind("paused", ANEW):
        if event["event"] == ANEW:
            found = {digest: value for digest, value in found.items() if digest not in event["members"]}
        elif event["epoch"] == rung:
            found |= event["metric"]
    return found
