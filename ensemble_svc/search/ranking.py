"""What the journal says of the rungs of a search whose trials are in several packs, and how its trials stand there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.population import Generations
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.members import Sealed
from ensemble_svc.store.turns import ANEW
from ensemble_svc.train.rungs import lost_for_good


def trial_losses(
    ladder: Ladder | Generations, members: Iterable[MemberSpec], values: Mapping[str, float], seals: Sealed
) -> dict[int, float]:
    """The loss of each trial that waits at a rung; not a number where one of its members was lost before.

    Args:
        members: of all trials.
        values: the metric of those that wait, by digest.
    """
    found, sick = dict[int, list[float]](), set[int]()
    for member in members:
        trial = ladder.trial(member.index)
        if member.digest in values:
            found.setdefault(trial, []).append(values[member.digest])
        elif member.digest in seals and lost_for_good(member, seals[member.digest]["status"]):
            sick.add(trial)
    return {trial: math.nan if trial in sick else ladder.loss(some) for trial, some in found.items()}


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
