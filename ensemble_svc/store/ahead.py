"""How long a search still takes: the epochs that its trials will yet train, at what one has taken so far.

Trials that stop at rungs, those of stages, and those that have not been asked for yet are counted as the job says how
many train how far; the plan of a moment knows only of the slots of that moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.store.reached import Member, PackRow, Reached


def goes_beyond_its_slots(search: SearchSpec | None) -> bool:
    """Whether the slots of a moment are not all that a search will train, or will not all train to their end."""
    return search is not None and (search.goes_in_rounds or search.scheduler.name != "none")


def search_left_s(reached: Reached, now: float) -> float | None:
    """Seconds until all trials have trained; None before any epoch has ended."""
    members = reached.ordered()
    trained = sum(member.epoch for member in members)
    if not trained:
        return None
    ahead = epochs_ahead(reached.spec(), members)
    open_ = [row for row in reached.packs.values() if not reached.over(row)]
    if len(open_) == 1 and open_[0].open and open_[0].slot.until is None:
        return _alone_s(open_[0], ahead, len(_training(reached, open_[0])), now)
    held_s = sum(row.since_start(now) for row in reached.packs.values())
    beside = max(1, min(reached.beside, len(open_)) if open_ else reached.beside)
    return ahead * held_s / trained / beside


def _training(reached: Reached, row: PackRow) -> list[Member]:
    return [member for member in reached.of(row) if member.status == "training"]


def _alone_s(row: PackRow, ahead: float, num_members: int, now: float) -> float | None:
    """Seconds of the only pack that still trains, whose members leave it one rung after another.

    What an epoch takes is partly the same however many are left; half of it, until it shows.

    Args:
        ahead: epochs of all its members together.
        num_members: that train now.
    """
    if row.pace_s is None:
        return None
    last = row.ticks[-1]
    epochs = 0.5 * (last.epochs - last.epoch) + 0.5 * ahead / max(1, num_members)
    return max(0.0, epochs * row.pace_s - (now - last.time))


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
    brackets, total = ladder.scheduler.brackets(ladder.epochs), 0
    for (_, bracket), number in Counter(map(ladder.bracket, range(num_trials))).items():
        since, left = 0, number
        for rung in brackets[bracket]:
            total += left * (rung - since)
            since, left = rung, max(1, left // ladder.scheduler.factor)
        total += left * (ladder.epochs - since)
    return total * ladder.seeds


def _to_ask(job: JobSpec, num_known: int) -> float:
    """Epochs of the trials that are not asked for yet, of one seed each."""
    search, epochs = job.search, job.training.epochs
    assert search is not None
    if (stages := search.coarse_to_fine) is None:
        return epochs * max(0, search.num_trials - num_known)
    ends = stages.ends(search.num_trials)
    numbers = (next(s for s, end in enumerate(ends) if trial < end) for trial in range(num_known, ends[-1]))
    return sum(stages.epochs(stage, epochs) for stage in numbers)
