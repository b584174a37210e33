"""The choice among candidates: one kind of slot for all groups, and for each group its packs.

Groups share the machines, so they are weighed together: in each kind of slot every group takes its own
fastest candidate, or the one that costs the least lane time, and the placement whose last slot ends first
wins. For a single group this is the fastest of all its candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ensemble_svc.plan.candidates import TIE, Candidate, candidates, fewest, makespan
from ensemble_svc.plan.forecast import slot_of
from ensemble_svc.plan.groups import Group
from ensemble_svc.plan.plan import Pack, Slot
from ensemble_svc.plan.rooms import Room

Pick = tuple[Candidate, ...]
"""A candidate for each group."""


def place_by_measurement(groups: Sequence[Group], rooms: Sequence[Room]) -> list[list[Slot]] | None:
    """The slots of each group in the placement whose last slot ends first; None where timings speak of none.

    Args:
        groups: each with its timings.
        rooms: the kinds of slots to choose from.
    """
    offered = [[_candidates(group, room) for group in groups] for room in rooms]
    whole = [found for found in offered if all(found)]
    picks = [pick for found in whole for pick in _picks(found)]
    if not picks:
        return None
    taken = best_of(picks)
    every = [[c for found in whole for c in found[i]] for i in range(len(groups))]
    return [
        list(_slots(group, candidate, reason(candidate, others)))
        for group, candidate, others in zip(groups, taken, every, strict=True)
    ]


def best_of(picks: Sequence[Pick]) -> Pick:
    """The pick whose last slot ends first, those that fit before those that do not; of a tie, the fewest slots."""

    def fits(pick: Pick) -> bool:
        return all(candidate.fits for candidate in pick)

    able = [pick for pick in picks if fits(pick)] or picks
    earliest = min(map(_end, able))
    close = [pick for pick in able if _end(pick) <= TIE * earliest]
    return min(close, key=lambda pick: (sum(len(c.sizes) for c in pick), _end(pick)))


def _candidates(group: Group, room: Room) -> list[Candidate]:
    found = candidates(len(group.members), group.work, group.timings, room, largest=group.largest)
    return [candidate for candidate in found if not group.whole or len(candidate.sizes) == 1]


def _picks(found: Sequence[Sequence[Candidate]]) -> Iterator[Pick]:
    yield tuple(fewest(each) for each in found)
    if len(found) > 1:
        yield tuple(fewest(each, least_work=True) for each in found)


def _end(pick: Pick) -> float:
    """When the last slot of all groups has ended."""
    longest_first = sorted((spent for candidate in pick for spent in candidate.pack_s), reverse=True)
    return makespan(longest_first, max(candidate.room.lanes for candidate in pick))


def _slots(group: Group, candidate: Candidate, why: str) -> Iterator[Slot]:
    start = 0
    for size, timing in zip(candidate.sizes, candidate.timings, strict=True):
        pack = Pack(members=group.members[start : start + size])
        yield slot_of(pack, candidate.room, why, group.work, timing, measured=True)
        start += size


def reason(taken: Candidate, others: Sequence[Candidate]) -> str:
    """The placement in words, with the seconds of the best one of another kind."""
    told = f"measured: {described(taken)}: {spelled(taken.seconds)}"
    if not taken.fits:
        return f"{told}; nothing smaller is possible, though memory may not hold it"
    different = [other for other in others if other.fits and _kind(other) != _kind(taken)]
    if not different:
        return told
    second = min(different, key=lambda candidate: candidate.seconds)
    return f"{told}; {described(second)}: {spelled(second.seconds)}"


def _kind(candidate: Candidate) -> str:
    if candidate.sizes[0] == 1:
        return "alone"
    return "one pack" if len(candidate.sizes) == 1 else "packs"


def described(candidate: Candidate) -> str:
    """``10 alone, 2 at once on 1 core each`` or ``one pack of 10 on 2 cores``."""
    sizes, room = candidate.sizes, candidate.room
    where = f"{room.gpus:g} GPU" if room.gpus else f"{room.cpus} core" + ("s" if room.cpus > 1 else "")
    if len(sizes) == 1:
        return (f"one pack of {sizes[0]}" if sizes[0] > 1 else "1 alone") + f" on {where}"
    span = f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[-1]} and {sizes[0]}"
    who = f"{len(sizes)} alone" if sizes[0] == 1 else f"{len(sizes)} packs of {span}"
    at_once = min(room.lanes, len(sizes))
    return f"{who}, {at_once} at once on {where}" + (" each" if at_once > 1 else "")


def spelled(seconds: float) -> str:
    """``61 s``, ``3.2 s``, ``14 min`` or ``2.5 h``."""
    if seconds < 600:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36_000 else f"{seconds / 3600:.1f} h"
