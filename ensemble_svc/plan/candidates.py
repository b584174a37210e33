"""Every way to cut the members of one structure into packs, with the seconds that measurements promise.

Pure arithmetic over timings. A candidate is a size of pack on a number of threads; how many packs train
at the same time follows from the machines.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ensemble_svc.plan.cost import Work
from ensemble_svc.plan.measurement import Timing, between
from ensemble_svc.plan.rooms import Room

SLOT_S = 0.3
"""Seconds that a slot costs before its first step: a trial of Tune's, networks built, data laid out."""
SEAL_S = 0.04
"""Seconds that each member costs at its end: predictions on every split, files written and synced."""
EPOCH_S = 0.003
"""Seconds that an epoch costs besides its steps and its validation: the loop's turn, the books.
All three as seen on two cores in the epochs, packs and stages of manifests."""
TIE = 1.02
"""Placements within this factor are one as good as the other; then fewer slots win."""


@dataclass(frozen=True)
class Candidate:
    """One way to train a group of members."""

    sizes: tuple[int, ...]
    """Members of each pack, the larger packs first."""
    room: Room
    timings: tuple[Timing, ...]
    """Of each pack, with as many beside it as there will be."""
    pack_s: tuple[float, ...]
    """Seconds of each pack."""
    crowd: int
    """Packs beside each other on one machine or GPU."""

    @property
    def seconds(self) -> float:
        """Until the last pack has ended, were there no other group."""
        return makespan(self.pack_s, self.room.lanes)

    @property
    def work_s(self) -> float:
        """Seconds of all packs together."""
        return sum(self.pack_s)

    @property
    def bytes_each(self) -> int:
        """Memory of the largest pack's process."""
        return self.timings[0].fixed_bytes + self.sizes[0] * self.timings[0].member_bytes

    @property
    def fits(self) -> bool:
        """Whether the packs beside each other fit in the memory that is known."""
        known = self.room.memory_bytes
        return known is None or self.crowd * self.bytes_each <= 0.9 * known


def candidates(
    num_members: int, work: Work, timings: Sequence[Timing], room: Room, *, largest: int
) -> Iterator[Candidate]:
    """Every size of pack that the timings speak of in slots of one kind.

    Args:
        largest: members of one pack at most.
    """
    for compiled in (False, True):
        wanted = (room.threads, room.device, compiled)
        known = [t for t in timings if (t.threads, t.device, t.compiled) == wanted]
        for size in range(room.smallest, min(num_members, largest, room.largest) + 1):
            sizes = even(num_members, -(-num_members // size))
            if known and sizes[0] == size and (found := _candidate(sizes, work, known, room)):
                yield found


def _candidate(sizes: tuple[int, ...], work: Work, known: Sequence[Timing], room: Room) -> Candidate | None:
    crowd = room.crowd(len(sizes))
    by_size = {size: timing for size in set(sizes) if (timing := crowded(known, size, crowd))}
    if len(by_size) < len(set(sizes)):
        return None
    seconds = {size: slot_seconds(work, timing) for size, timing in by_size.items()}
    timings = tuple(by_size[size] for size in sizes)
    return Candidate(sizes, room, timings, tuple(seconds[size] for size in sizes), crowd)


def crowded(timings: Sequence[Timing], members: int, at_once: int) -> Timing | None:
    """A pack's timing with ``at_once`` packs beside each other; None where nothing was measured.

    Between two measured numbers of packs it lies on the line between them; beyond the most that were
    measured beside each other it stays as it is there.
    """
    by_count = {
        count: between([t for t in timings if t.at_once == count], members) for count in _counts(timings)
    }
    known = {count: timing for count, timing in by_count.items() if timing is not None}
    most = max(known, default=1)
    above = min((count for count in known if count >= at_once), default=most if most > 1 else None)
    below = max((count for count in known if count <= at_once), default=above)
    if above is None or below is None:
        return None
    lower, upper = known[below], known[above]
    share = (at_once - below) / (above - below) if below < at_once < above else 1.0
    step_s = (1 - share) * lower.step_s + share * upper.step_s
    return upper.model_copy(update={"step_s": step_s, "at_once": at_once})


def _counts(timings: Sequence[Timing]) -> set[int]:
    return {timing.at_once for timing in timings}


def slot_seconds(work: Work, timing: Timing) -> float:
    """Seconds of a slot from its start to its members' seals; an upper bound where members stop early."""
    epochs = work.epochs * (work.steps * timing.step_s + timing.epoch_s + EPOCH_S)
    return SLOT_S + timing.members * SEAL_S + epochs + (timing.compile_s if timing.compiled else 0.0)


def even(num_members: int, num_packs: int) -> tuple[int, ...]:
    """Sizes of packs that differ by one member at most, the larger first: 17 in 2 are 9 and 8."""
    size, more = divmod(num_members, num_packs)
    return (size + 1,) * more + (size,) * (num_packs - more)


def makespan(seconds: Iterable[float], lanes: int) -> float:
    """Time until all slots have ended when each starts, in order, in the first lane that is free."""
    ends = [0.0] * lanes
    for spent in seconds:
        heapq.heapreplace(ends, ends[0] + spent)
    return max(ends)


def fewest(found: Sequence[Candidate], *, least_work: bool = False) -> Candidate:
    """The fastest candidate that fits, and of those as fast the one with the fewest slots.

    When none is known to fit it is the one that needs the least memory.

    Args:
        least_work: the fastest in lane time rather than in wall time.
    """
    fitting = [candidate for candidate in found if candidate.fits]
    if not fitting:
        return min(found, key=lambda c: (c.crowd * c.bytes_each, c.seconds))

    def spent(candidate: Candidate) -> float:
        return candidate.work_s if least_work else candidate.seconds

    best = min(map(spent, fitting))
    return min((c for c in fitting if spent(c) <= TIE * best), key=lambda c: (len(c.sizes), spent(c)))
