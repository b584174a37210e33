"""What an epoch of a pack takes, from those that packs of a run have trained: so much for itself, more a member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ensemble_svc.store.known import PackRow

OWN_SHARE = 0.5
"""What an epoch takes however many members the pack has, as a share of it, until packs of several sizes show it."""


@dataclass(frozen=True)
class Pace:
    """Seconds of an epoch, linear in the members that train."""

    pack_s: float
    """Of a pack, however many members it has."""
    member_s: float
    """More for each member."""
    start_s: float
    """Of an attempt at a slot beside its epochs: its start and its end."""

    @classmethod
    def of(cls, rows: Sequence[PackRow]) -> Pace | None:
        """What packs show: those under way hold for now, the others say what members add. None before any epoch."""
        told = [row for row in rows if row.ticks and row.ticks[-1].points]
        known = [row for row in told if row.pace_s is not None] or told
        if not known:
            return None
        present = [row for row in known if row.open] or known
        members, pace_s = fmean(map(_members, present)), fmean(map(_pace_s, present))
        slope = _slope([(_members(row), _pace_s(row)) for row in known])
        member_s = (
            (1 - OWN_SHARE) * pace_s / members if slope is None else min(max(0.0, slope), pace_s / members)
        )
        ended = [row for row in rows if row.ticks and not row.open]
        start_s = fmean(map(_beside_epochs_s, ended)) if ended else 0.0
        return cls(pace_s - member_s * members, member_s, start_s)

    def epoch_s(self, members: float) -> float:
        """Of a pack of so many."""
        return self.pack_s + self.member_s * members


def _slope(points: Sequence[tuple[int, float]]) -> float | None:
    """Seconds that a member adds, by least squares; None where all packs have as many members."""
    middle, mean_s = fmean(x for x, _ in points), fmean(y for _, y in points)
    spread = sum((x - middle) ** 2 for x, _ in points)
    return sum((x - middle) * (y - mean_s) for x, y in points) / spread if spread else None


def _members(row: PackRow) -> int:
    """That trained in its last epoch."""
    return len(row.ticks[-1].points)


def _pace_s(row: PackRow) -> float:
    """Its pace; before two of its epochs have ended what the first took, with its start."""
    last = row.ticks[-1]
    return row.pace_s if row.pace_s is not None else last.seconds / max(1, last.epoch - row.slot.since)


def _beside_epochs_s(row: PackRow) -> float:
    """What its last attempt took before and after its epochs."""
    first, last = row.ticks[0], row.ticks[-1]
    return max(0.0, row.held_s - (last.seconds - first.seconds) - (row.pace_s or 0.0))
