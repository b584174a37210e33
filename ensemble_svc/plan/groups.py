"""Members of one structure: what they have to do, and what was measured of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ensemble_svc.plan.cost import DataShape, Work, work_of
from ensemble_svc.plan.executor import Resources
from ensemble_svc.plan.formula import formula
from ensemble_svc.plan.measurement import Measured, Timing, timing_key
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.plan.rooms import device_of
from ensemble_svc.plan.structure import structure
from ensemble_svc.spec.job import ComputeSpec

LARGEST_PACK = 256
"""Members of one pack at most, when the job sets no bound."""


@dataclass(frozen=True)
class Group:
    """Members of one structure."""

    members: tuple[MemberSpec, ...]
    key: str
    """Under which their timings are kept."""
    work: Work
    largest: int
    """Members of one pack at most, as the job and the network allow."""
    timings: tuple[Timing, ...] = ()
    whole: bool = False
    """Whether all share one pack where memory holds it."""

    @property
    def first(self) -> int:
        """Index of the first member, by which groups are told apart."""
        return self.members[0].index


def groups_of(
    members: Sequence[MemberSpec],
    num_rows: Mapping[int, int],
    compute: ComputeSpec,
    resources: Resources,
    measured: Measured | None = None,
    *,
    shape: DataShape,
) -> list[Group]:
    """The members by structure, in the order of their first members.

    Args:
        num_rows: training rows of each member, by index.
    """
    device, known = device_of(compute, resources), measured or Measured()

    def kind(member: MemberSpec) -> str:
        """The single model that the ensemble is measured against has a slot, and so a time, of its own.

        So has what a search trains again, which is ranked with none of its trials.
        """
        return f"{member.is_single}{member.is_again}{structure(member, num_rows[member.index])}"

    def group(some: tuple[MemberSpec, ...]) -> Group:
        first = max(some, key=lambda member: member.training.epochs)
        work = work_of(first, num_rows[first.index], shape)
        key = timing_key(structure(first, work.batch), first.data_hash, resources, device)
        return Group(some, key, work, largest_pack(first, compute), _at_least(known.of(key), work))

    together: dict[str, list[MemberSpec]] = {}
    for member in sorted(members, key=lambda member: member.index):
        together.setdefault(kind(member), []).append(member)
    found = [group(tuple(together[one])) for one in sorted(together)]
    return sorted(_lent(found), key=lambda group: group.members[0].index)


def _at_least(timings: tuple[Timing, ...], work: Work) -> tuple[Timing, ...]:
    """Timings whose memory is at least the formula's: a process that reuses freed pages seems to need less."""
    guesses = [formula(work, t.members, t.threads, t.device) for t in timings]
    pairs = zip(timings, guesses, strict=True)
    least = [max(t.member_bytes, guess.member_bytes if guess else 0) for t, guess in pairs]
    return tuple(
        t.model_copy(update={"member_bytes": bytes_}) for t, bytes_ in zip(timings, least, strict=True)
    )


def _lent(groups: list[Group]) -> list[Group]:
    """Groups that were not measured get the timings of one that was, scaled as the formula scales.

    A job that varies its structure has many small groups, and measuring each would take too long.
    """
    lender = max(groups, key=lambda group: len(group.timings), default=None)
    if lender is None or not lender.timings:
        return groups
    return [g if g.timings else replace(g, timings=_scaled(lender, g.work)) for g in groups]


def _scaled(lender: Group, work: Work) -> tuple[Timing, ...]:
    scaled = list[Timing]()
    for timing in lender.timings:
        theirs = formula(lender.work, timing.members, timing.threads, timing.device)
        own = formula(work, timing.members, timing.threads, timing.device)
        if theirs is None or own is None:
            return ()
        step_s = timing.step_s * own.step_s / theirs.step_s
        epoch_s = timing.epoch_s * own.epoch_s / theirs.epoch_s if theirs.epoch_s else 0.0
        changed = {"step_s": step_s, "epoch_s": epoch_s, "member_bytes": own.member_bytes}
        scaled.append(timing.model_copy(update=changed))
    return tuple(scaled)


def largest_pack(member: MemberSpec, compute: ComputeSpec) -> int:
    """Members of one pack at most; a network of the user's own packs only where the job says so."""
    if compute.pack == "off":
        return 1
    if isinstance(compute.pack, int):
        return compute.pack
    return LARGEST_PACK if member.model.packs_unasked else 1
