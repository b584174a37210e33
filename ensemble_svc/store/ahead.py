"""How long a search still takes: the epochs that its trials will yet train, at what one has taken so far.

Trials that stop at rungs, those of stages, and those that have not been asked for yet are counted as the job says how
many train how far; the plan of a moment knows only of the slots of that moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.store.pace import Pace
from ensemble_svc.store.reached import Member, PackRow, Reached


def goes_beyond_its_slots(search: SearchSpec | None) -> bool:
    """Whether the slots of a moment are not all that a search will train, or will not all train to their end."""
    return search is not None and (search.goes_in_rounds or search.scheduler.name != "none")


def search_left_s(reached: Reached, now: float) -> float | None:
    """Seconds until all trials have trained; None before any epoch has ended.

    Stretch by stretch, from one rung to the next: what a pack's epoch takes with as many members as are left then.
    """
    rows, members = list(reached.packs.values()), reached.ordered()
    pace = Pace.of(rows)
    if pace is None:
        return None
    live = [row for row in rows if _trains_on(reached, row)]
    stretches = stretches_ahead(reached.spec(), members)
    cut = any(row.slot.until is not None for row in rows)
    at_once = sum(not (member.sealed or member.ranked_out) for member in members)
    total_s = sum(_stretch_s(one, pace, len(live), reached.beside, at_once, cut=cut) for one in stretches)
    last = max((row.ticks[-1].time for row in live if row.open and row.ticks), default=now)
    return max(0.0, total_s - min(now - last, pace.epoch_s(max(1, at_once))))


def _trains_on(reached: Reached, row: PackRow) -> bool:
    """Whether a pack has members that are to train further in it."""
    end = row.slot.until
    return any(
        not (member.sealed or member.ranked_out)
        and member.pack == row.slot.pack.id
        and (end is None or member.epoch < end)
        for member in reached.of(row)
    )


def _stretch_s(
    stretch: Stretch, pace: Pace, num_packs: int, beside: int, at_once: int, *, cut: bool
) -> float:
    """Seconds of the packs that train a stretch.

    Args:
        num_packs: that train now; fewer where fewer members are left.
        beside: packs that have trained at once.
        at_once: members that there are now, of a search that asks for its trials in rounds the most at once.
        cut: whether packs end at rungs.
    """
    members = min(stretch.members, at_once) if stretch.in_rounds and at_once else stretch.members
    packs = max(1.0, min(num_packs, members))
    epochs = stretch.ahead / members
    starts = packs * (stretch.share if cut else 0.0) * pace.start_s
    return (packs * epochs * pace.epoch_s(members / packs) + starts) / min(max(1, beside), packs)


@dataclass(frozen=True)
class Stretch:
    """What is left to train between two rungs."""

    ahead: float
    """Epochs of all its members together."""
    members: float
    """That train it beside each other, one at least."""
    share: float = 0.0
    """Of it that is left where it begins in other packs; 0 once it has begun."""
    in_rounds: bool = False
    """Whether some of its members are not asked for before others have trained."""


def stretches_ahead(job: JobSpec, members: Sequence[Member]) -> list[Stretch]:
    """What is left of a search, from rung to rung; without rungs in one.

    Args:
        members: those that there are, by index.
    """
    search = job.search
    assert search is not None
    ladder = Ladder.of(search, job.training.epochs)
    rounds = search.goes_in_rounds and len(members) < search.num_trials * search.seeds_per_trial
    if ladder is None:
        ahead = epochs_ahead(job, members)
        going = sum(not member.sealed for member in members)
        return [Stretch(ahead, max(1, going), in_rounds=rounds)] if ahead else []
    own = [member for member in members if not member.spec.is_again]
    again = [m for m in members if m.spec.is_again and not m.sealed]
    rest = sum(m.spec.training.epochs - m.epoch for m in again)
    found = [Stretch(rest, len(again))] if rest else []
    for since, until, number in _by_rungs(ladder, search.num_trials):
        done = sum(min(max(0, member.epoch - since), until - since) for member in own)
        ahead = max(0, number * (until - since) - done)
        turns = len({ladder.bracket(trial) for trial in range(search.num_trials)}) if ladder.in_turn else 1
        if ahead:
            found.append(Stretch(ahead, max(1.0, number / turns), float(done == 0), rounds))
    return found


def _by_rungs(ladder: Ladder, num_trials: int) -> list[tuple[int, int, int]]:
    """From which epoch to which so many members train, where some trials stop at each rung."""
    edges = [0, *ladder.rungs, ladder.epochs]
    training = Counter[int]()
    brackets = ladder.scheduler.brackets(ladder.epochs)
    for (_, bracket), left in Counter(map(ladder.bracket, range(num_trials))).items():
        for since in edges[:-1]:
            if since in brackets[bracket]:
                left = max(1, left // ladder.scheduler.factor)
            training[since] += left * ladder.seeds
    return [(since, until, training[since]) for since, until in zip(edges, edges[1:], strict=False)]


def epochs_ahead(job: JobSpec, members: Sequence[Member]) -> float:
    """Epochs that all members of a search have yet to train, those included that are not asked for yet.

    Args:
        members: those that there are, by index.
    """
    search = job.search
    assert search is not None
    own = [member for member in members if not member.spec.is_again]
    again = sum(m.spec.training.epochs - m.epoch for m in members if m.spec.is_again and not m.sealed)
    if (ladder := Ladder.of(search, job.training.epochs)) is not None:
        return again + max(0.0, _by_ladder(ladder, search.num_trials) - sum(member.epoch for member in own))
    ended = [member.epoch / member.spec.training.epochs for member in own if member.sealed]
    share = fmean(ended) if ended and search.scheduler.name != "none" else 1.0
    known = sum(max(0.0, share * m.spec.training.epochs - m.epoch) for m in own if not m.sealed)
    return again + known + share * search.seeds_per_trial * _to_ask(job, len(own) // search.seeds_per_trial)


def _by_ladder(ladder: Ladder, num_trials: int) -> float:
    """Epochs that all members of so many trials train where some stop at each rung."""
    return sum(number * (until - since) for since, until, number in _by_rungs(ladder, num_trials))


def _to_ask(job: JobSpec, num_known: int) -> float:
    """Epochs of the trials that are not asked for yet, of one seed each."""
    search, epochs = job.search, job.training.epochs
    assert search is not None
    if (stages := search.coarse_to_fine) is None:
        return epochs * max(0, search.num_trials - num_known)
    ends = stages.ends(search.num_trials)
    numbers = (next(s for s, end in enumerate(ends) if trial < end) for trial in range(num_known, ends[-1]))
    return sum(stages.epochs(stage, epochs) for stage in numbers)
