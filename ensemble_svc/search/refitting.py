"""Configurations that a greedy ensemble of the trials has are trained again from other seeds (Wenzel et al. 2020).

What is trained again stands in the journal as ``refit``, with how many trials there were. The new members have indices
of their own from ``AGAIN`` on, so that no member's seed ever changes, nor whom a trial is ranked with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ensemble_svc.aggregate.selection import greedy
from ensemble_svc.course import Ready
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.search.asking import Values
from ensemble_svc.search.stages import lasting
from ensemble_svc.search.telling import candidates_of
from ensemble_svc.spec.aggregate import Greedy
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.refining import RefitSpec
from ensemble_svc.store.journal import Event, Journal

EVENT = "refit"


def refits_in(journal: Journal) -> list[Event]:
    """What was chosen to be trained again, in order."""
    return journal.of_kind(EVENT)


def again_of(job: JobSpec, trials: Sequence[Values], refits: Sequence[Event]) -> dict[int, Values]:
    """What is trained again, by its place among all that ever was chosen.

    A trial of a search in stages is trained as long as those of the last one. What was chosen of trials that the job
    has no more is left out, and its places with it.
    """
    assert job.search is not None
    found, place = dict[int, Values](), 0
    for event in refits:
        for number in event["trials"]:
            for _ in range(event["seeds"] // job.search.seeds_per_trial):
                if number < len(trials):
                    found[place] = lasting(job, trials[number])
                place += 1
    return found


def own_members(members: Iterable[MemberSpec]) -> list[MemberSpec]:
    """The members of the search's own trials, in order."""
    own = (member for member in members if not (member.is_single or member.is_again))
    return sorted(own, key=lambda member: member.index)


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
