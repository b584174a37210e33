"""Configurations that a greedy ensemble of the trials has are trained again from other seeds (Wenzel et al. 2020).

What is trained again stands in the journal as ``refit``, with how many trials there were. The new members come after
those trials, and trials that are added later after them, so that no member's seed ever changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ensemble_svc.aggregate.selection import greedy
from ensemble_svc.course import Ready
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.search.asking import Values
from ensemble_svc.search.telling import candidates_of
from ensemble_svc.spec.aggregate import Greedy
from ensemble_svc.spec.refining import RefitSpec
from ensemble_svc.store.journal import Event, Journal

EVENT = "refit"


class Laid(NamedTuple):
    """Configurations in the order of their members."""

    values: tuple[Values, ...]
    trial: tuple[int | None, ...]
    """Of each, which trial of the search it is; None where it is one that is trained again."""


def refits_in(journal: Journal) -> list[Event]:
    """What was chosen to be trained again, in order."""
    return journal.of_kind(EVENT)


def laid_out(trials: Sequence[Values], refits: Sequence[Event], seeds_per_trial: int) -> Laid:
    """The trials, with what is trained again behind those that it was chosen from."""
    values, numbers, placed = list[Values](), list[int | None](), 0
    for event in refits:
        if event["after"] > len(trials):
            break
        values += trials[placed : event["after"]]
        numbers += range(placed, event["after"])
        placed = event["after"]
        again = [
            trials[number] for number in event["trials"] for _ in range(event["seeds"] // seeds_per_trial)
        ]
        values += again
        numbers += [None] * len(again)
    return Laid((*values, *trials[placed:]), (*numbers, *range(placed, len(trials))))


def own_members(members: Sequence[MemberSpec], laid: Laid, seeds_per_trial: int) -> list[MemberSpec]:
    """The members of the search's own trials, in order."""
    ordered = sorted((m for m in members if not m.is_single), key=lambda member: member.index)
    return [member for member in ordered if laid.trial[member.index // seeds_per_trial] is not None]


def chosen(
    ready: Ready, refit: RefitSpec, members: Sequence[MemberSpec], before: Sequence[Event]
) -> list[int]:
    """The trials whose configurations are to be trained again, those first that were picked first.

    However few members the ensemble itself may have: more configurations give it more to choose from.

    Args:
        members: of the search's own trials, in order.
        before: what was chosen earlier, which is not chosen again.
    """
    known = {number for event in before for number in event["trials"]}
    numbers, pool = candidates_of(ready, members)
    if pool is None:
        return []
    picks = [numbers[pick] for pick in greedy(pool, Greedy().picks).picks]
    return [number for number in dict.fromkeys(picks) if number not in known][: refit.configurations]
