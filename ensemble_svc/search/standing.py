"""How the trials of a search stand on their way up, and in which slots: all of it follows from the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ensemble_svc.course import Ready, begun
from ensemble_svc.plan.executor import Executor
from ensemble_svc.plan.plan import MemberSpec, Pack, Slot
from ensemble_svc.planning import measured_in, place_members
from ensemble_svc.search.populations import Populations
from ensemble_svc.search.ranking import decided, failed_in
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.population import Generations
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.members import sealed


@dataclass
class Standing:
    """A search's trials."""

    ready: Ready
    ladder: Ladder | Generations
    populations: Populations | None
    executor: Executor
    lost: set[str] = field(default_factory=set)
    """Members that came to no rung since the command was given, where that decides nothing."""

    @property
    def journal(self) -> Journal:
        """The run's."""
        return self.ready.run.journal

    def failed(self, members: Iterable[MemberSpec]) -> set[str]:
        """The digests of those that have failed for good and were not placed anew since.

        Of a population nobody is ranked last for it: who failed is tried again at the next start.
        """
        if self.populations is not None:
            return set()
        names = failed_in(self.journal)
        return {member.digest for member in members if member.id in names}

    def to_rank(self) -> list[MemberSpec]:
        """The living that are in no slot which ranks its own."""
        lone = {member.digest for slot in self.lone() for member in slot.pack.members}
        return [member for member in self.living() if member.digest not in lone]

    def by_epoch(self, members: Iterable[MemberSpec]) -> dict[int, list[MemberSpec]]:
        """The members by the epoch at which they wait."""
        (reached, _), found = decided(self.journal), dict[int, list[MemberSpec]]()
        for member in members:
            found.setdefault(reached.get(member.digest, 0), []).append(member)
        return found

    def spread(
        self, populations: Populations, by_epoch: Mapping[int, list[MemberSpec]]
    ) -> dict[int, list[MemberSpec]]:
        """The same without populations that one new pack holds: they need not leave it, up to the end."""
        found, last = dict[int, list[MemberSpec]](), self.ladder.rungs[-1]
        everyone = populations.of([member for some in by_epoch.values() for member in some])
        sizes = {some[0].digest: len(some) for some in everyone}
        for since, members in by_epoch.items():
            for some in populations.of(members):
                whole = sizes.get(some[0].digest) == len(some)
                begun_apart = since < last and self.kept(some, since, self.next_rung(since))
                if not whole or begun_apart or len(self.placed(some, since)) > 1:
                    found.setdefault(since, []).extend(some)
        return found

    def living(self) -> list[MemberSpec]:
        """The members that still train, or are to, in the order of their numbers."""
        done, (_, out) = sealed(self.ready.run.path), decided(self.journal)
        return [m for m in self.members() if not {m.digest} & (done.keys() | out.keys() | self.lost)]

    def members(self) -> list[MemberSpec]:
        """All trials' members, by number."""
        trials = (member for member in self.ready.plan.members if not is_aside(member))
        return sorted(trials, key=lambda member: member.index)

    def lone(self) -> list[Slot]:
        """Slots at work that rank their trials among themselves, up to the end."""
        living = {member.digest for member in self.living()}
        every = [member.digest for member in self.ready.plan.members]
        slots = begun(self.journal, every, lambda slot: slot.until is None)
        return [slot for slot in slots if any(m.digest in living for m in slot.pack.members)]

    def kept(self, members: Iterable[MemberSpec], since: int, until: int | None) -> list[Slot]:
        """Slots of these members that were at work between these rungs, or were to be once others had been ranked."""
        group, every = {m.digest for m in members}, [m.digest for m in self.members()]

        def wanted(slot: Slot) -> bool:
            there = (slot.since, slot.until) == (since, until)
            return there and any(member.digest in group for member in slot.pack.members)

        return begun(self.journal, every, wanted, or_placed=since > 0)

    def placed(self, members: Sequence[MemberSpec], since: int) -> list[Slot]:
        """Slots for members that wait at an epoch: at first the plan's, later anew, each structure's together."""
        if not members:
            return []
        digests = {member.digest for member in members}
        if not since:
            found = (only(slot, lambda m: m.digest in digests) for slot in self.ready.plan.slots)
            return [slot for slot in found if slot is not None]
        ready, resources, measured = self.ready, self.executor.resources(), measured_in(self.ready.run.path)
        groups = [members] if self.populations is None else self.populations.of(members)
        plans = [place_members(ready.job, ready.prepared, some, resources, measured) for some in groups]
        return [slot.model_copy(update={"since": since}) for plan in plans for slot in plan.slots]

    def losers(self, *, failed: bool = False) -> list[Slot]:
        """Slots that seal the members which have stopped at a rung, as they were there.

        Args:
            failed: those that failed at an earlier start of the command and so have yet to come there; none while
                there are trials to ask for, which would be told of them.
        """
        done, (_, out) = sealed(self.ready.run.path), decided(self.journal)
        open_ = [m for m in self.members() if m.digest in out and m.digest not in done]
        names, again = failed_in(self.journal), frozenset[str]()
        if failed and self._has_asked_all():
            again = failed_in(self.journal, before=self.journal.of_kind("begin")[-1]["time"])
        open_ = [m for m in open_ if (m.id in again if failed else m.id not in names)]
        found = list[Slot]()
        for rung in sorted({out[member.digest] for member in open_}):
            some = [member for member in open_ if out[member.digest] == rung]
            found += [until_epoch(slot, rung) for slot in self.placed(some, rung)]
        return found

    def next_rung(self, since: int) -> int:
        """The rung after one."""
        return next(rung for rung in self.ladder.rungs if rung > since)

    def _has_asked_all(self) -> bool:
        search = self.ready.written.search
        return search is not None and len(self.members()) >= search.num_trials * search.seeds_per_trial


def is_aside(member: MemberSpec) -> bool:
    """Whether it is no trial, and ranked with none."""
    return member.is_single or member.is_again


def until_epoch(slot: Slot, until: int) -> Slot:
    """The slot, which pauses at an epoch."""
    return slot.model_copy(update={"until": until})


def only(slot: Slot, wanted: Callable[[MemberSpec], bool]) -> Slot | None:
    """The slot with some of its members; None where none of them is wanted."""
    members = tuple(member for member in slot.pack.members if wanted(member))
    return slot.model_copy(update={"pack": Pack(members=members)}) if members else None
