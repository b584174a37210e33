"""Trials of several packs that are ranked together: all of them train up to a rung, and the best go on from there.

At a rung each pack pauses, its state committed. The driver ranks the trials, writes down which of them stop, and
only then lets anything go on: those that stop are sealed as they are, the others are gathered into new packs, slice
by slice. Of a population nobody stops, and some are gathered from another's slice. Trials that one pack holds need
none of it; they are ranked inside it, with the same outcome. Each step follows from the journal alone, so a run that
was stopped anywhere goes on as if it had not been.

A trial that fails for good on its way to a rung is ranked last there, and stops. It holds up nobody, and no later
start ranks it again: one that finds all trials asked for trains it up to that rung, and seals it as stopped. Where
nobody came to the rung, as with a full disk, nothing is decided, and the next start tries all of them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ensemble_svc.course import Course, Ready, begun, note, settle
from ensemble_svc.listening import Listener
from ensemble_svc.plan.executor import Executor
from ensemble_svc.plan.plan import MemberSpec, Pack, Plan, Slot
from ensemble_svc.planning import measured_in, place_members
from ensemble_svc.search.anew import begin_anew
from ensemble_svc.search.leaving import train_left
from ensemble_svc.search.populations import Populations
from ensemble_svc.search.ranking import decided, failed_in, paused, trial_losses
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.population import Generations
from ensemble_svc.store.commits import clear_passed, clear_spent
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.members import sealed
from ensemble_svc.store.spending import is_spent
from ensemble_svc.train.rungs import lost_in


def climbed(ready: Ready, executor: Executor, listener: Listener) -> Course:
    """The run with its trials past every rung at which packs must wait for each other; what is left needs no other.

    Call it under the run's lock, once the run has begun.

    Raises:
        EnsembleSvcError: as training; the same command again goes on.
    """
    ladder = ladder_of(ready)
    if ladder is None:
        return ready.course(executor.resources())
    populations = Populations(ready, ladder) if isinstance(ladder, Generations) else None
    if populations is not None:
        begin_anew(ready.run, populations, [m for m in ready.plan.members if not _is_aside(m)])
    climb = _Climb(ready, ladder, populations, executor, listener)
    with ready.clock.stage("rungs"):
        while (group := climb.lowest()) is not None:
            if (course := climb.alone(*group)) is not None:
                return course
            climb.rise(*group)
        return climb.top()


def ladder_of(ready: Ready) -> Ladder | Generations | None:
    """When the run's trials are ranked, before they have trained; None where they are not."""
    search = ready.job.search
    epochs = max(member.training.epochs for member in ready.plan.members if not _is_aside(member))
    found = Ladder.of(search, epochs) or Generations.of(search, epochs)
    return found if found and found.rungs else None


@dataclass
class _Climb:
    """A search on its way up."""

    ready: Ready
    ladder: Ladder | Generations
    populations: Populations | None
    executor: Executor
    listener: Listener
    lost: set[str] = field(default_factory=set)
    """Members that came to no rung since the command was given, where that decides nothing."""

    @property
    def journal(self) -> Journal:
        return self.ready.run.journal

    def lowest(self) -> tuple[list[MemberSpec], int] | None:
        """The members that have climbed least, with the epoch at which they wait; None when all are at the top."""
        by_epoch = self._by_epoch(self._open())
        if self.populations is not None:
            by_epoch = self._spread(self.populations, by_epoch)
        since = min(by_epoch, default=self.ladder.rungs[-1])
        return (by_epoch[since], since) if since < self.ladder.rungs[-1] else None

    def alone(self, members: Sequence[MemberSpec], since: int) -> Course | None:
        """The rest of the way, where one new pack holds all members that still train: they need not leave it."""
        if self.populations is not None or len(members) < len(self._living()):
            return None
        if self._kept(members, since, self._next(since)):
            return None
        slots = self._placed(members, since)
        return self._course(slots) if len(slots) == 1 else None

    def rise(self, members: Sequence[MemberSpec], since: int) -> None:
        """Train the members up to their next rung and decide which of them go on."""
        rung = self._next(since)
        kept = self._kept(members, since, rung)
        placed = {member.digest for slot in kept for member in slot.pack.members}
        failed = self._failed(members)
        gone = failed if len(failed) < len(members) else set[str]()
        left = [member for member in members if member.digest not in placed | gone]
        fresh = [_until(slot, rung) for slot in self._placed(left, since)]
        note(self.journal, fresh)
        there = paused(self.journal, rung)
        slots = [slot for slot in (*kept, *fresh) if any(m.digest not in there for m in slot.pack.members)]
        plan = self.ready.left((*slots, *self._losers()), self.executor.resources())
        course = Course(self.ready, self.ready.plan, plan)
        train_left(course, self.executor, self.listener)
        self._decide(members, rung)
        self._clear(rung)

    def top(self) -> Course:
        """What is left when no trial is ranked any more."""
        slots = list[Slot]()
        for since, some in sorted(self._by_epoch(self._open()).items()):
            kept = self._kept(some, since, None)
            placed = {member.digest for slot in kept for member in slot.pack.members}
            left = [member for member in some if member.digest not in placed]
            slots += [*kept, *self._placed(left, since)]
        return self._course(slots)

    def _course(self, slots: Sequence[Slot]) -> Course:
        """The last slots of the run: these, those at work already, and those that seal what has stopped."""
        note(self.journal, slots)
        aside = (_only(slot, _is_aside) for slot in self.ready.plan.slots)
        others = settle(self.ready.run, [slot for slot in aside if slot is not None])
        every = (*self._lone(), *slots, *others, *self._losers(), *self._losers(failed=True))
        first = begun(self.journal, [member.digest for member in self.ready.plan.members])
        placed = {member.digest for slot in first for member in slot.pack.members}
        never = (_only(slot, lambda m: m.digest not in placed) for slot in self.ready.plan.slots)
        whole = Plan(slots=(*first, *(slot for slot in never if slot is not None)))
        return Course(self.ready, whole, self.ready.left(every, self.executor.resources()))

    def _decide(self, members: Sequence[MemberSpec], rung: int) -> None:
        """Rank what has paused at a rung, and write down what becomes of it.

        Where the budget has kept others from coming, nobody is ranked among those who happened to come: it ends them.
        """
        found = paused(self.journal, rung)
        done = sealed(self.ready.run.path)
        there = [m for m in members if m.digest in found and m.digest not in done]
        away = [m for m in members if m.digest not in found and m.digest not in done]
        failed = self._failed(away)
        self.lost |= {m.digest for m in away} - (failed if there else set())
        if not there:
            return
        values, lost = {m.digest: found[m.digest] for m in there}, lost_in(self.journal)
        losses = trial_losses(self.ladder, self._members(), values, done, failed=failed, lost=lost)
        stopped, taken = dict[int, str](), dict[str, Any]()
        if len(failed) < len(away) and is_spent(self.ready.run.path):
            self.lost |= failed
            failed = set()
        elif isinstance(self.ladder, Ladder):
            stopped = self.ladder.stopped(losses, rung)
        elif self.populations is not None:
            taken = self.populations.taken(there, losses, rung)
        trials = {member.digest: self.ladder.trial(member.index) for member in there}
        on = [digest for digest, trial in trials.items() if trial not in stopped]
        out = {digest: stopped[trial] for digest, trial in trials.items() if trial in stopped}
        out |= dict.fromkeys(failed, f"{self._rule}: failed before epoch {rung}, so ranked last")
        facts = {"lost": [m.id for m in away if m.digest in failed], **({"taken": taken} if taken else {})}
        self.journal.append("rung", epoch=rung, on=on, out=out, **facts)

    @property
    def _rule(self) -> str:
        """The name of the scheduler."""
        assert self.ready.job.search is not None
        return self.ready.job.search.scheduler.name

    def _failed(self, members: Iterable[MemberSpec]) -> set[str]:
        """The digests of those that have failed for good and were not placed anew since.

        Of a population nobody is ranked last for it: who failed is tried again at the next start.
        """
        if self.populations is not None:
            return set()
        names = failed_in(self.journal)
        return {member.digest for member in members if member.id in names}

    def _clear(self, rung: int) -> None:
        """Remove commits from which nobody goes on any more, now that a rung is decided."""
        run, done = self.ready.run.path, sealed(self.ready.run.path)
        if self.populations is None:
            clear_spent(run, {member.digest for member in self.ready.plan.members}, done)
            return
        reached, _ = decided(self.journal)
        behind = [
            m.digest for m in self._members() if m.digest not in done and reached.get(m.digest, 0) < rung
        ]
        clear_passed(run, rung, behind, reached)

    def _open(self) -> list[MemberSpec]:
        """The living that are in no slot which ranks its own."""
        lone = {member.digest for slot in self._lone() for member in slot.pack.members}
        return [member for member in self._living() if member.digest not in lone]

    def _by_epoch(self, members: Iterable[MemberSpec]) -> dict[int, list[MemberSpec]]:
        """The members by the epoch at which they wait."""
        (reached, _), found = decided(self.journal), dict[int, list[MemberSpec]]()
        for member in members:
            found.setdefault(reached.get(member.digest, 0), []).append(member)
        return found

    def _spread(
        self, populations: Populations, by_epoch: Mapping[int, list[MemberSpec]]
    ) -> dict[int, list[MemberSpec]]:
        """The same without populations that one new pack holds: they need not leave it, up to the end."""
        found, last = dict[int, list[MemberSpec]](), self.ladder.rungs[-1]
        everyone = populations.of([member for some in by_epoch.values() for member in some])
        sizes = {some[0].digest: len(some) for some in everyone}
        for since, members in by_epoch.items():
            for some in populations.of(members):
                whole = sizes.get(some[0].digest) == len(some)
                begun_apart = since < last and self._kept(some, since, self._next(since))
                if not whole or begun_apart or len(self._placed(some, since)) > 1:
                    found.setdefault(since, []).extend(some)
        return found

    def _living(self) -> list[MemberSpec]:
        """The members that still train, or are to, in the order of their numbers."""
        done, (_, out) = sealed(self.ready.run.path), decided(self.journal)
        return [m for m in self._members() if not {m.digest} & (done.keys() | out.keys() | self.lost)]

    def _members(self) -> list[MemberSpec]:
        trials = (member for member in self.ready.plan.members if not _is_aside(member))
        return sorted(trials, key=lambda member: member.index)

    def _lone(self) -> list[Slot]:
        """Slots at work that rank their trials among themselves, up to the end."""
        living = {member.digest for member in self._living()}
        every = [member.digest for member in self.ready.plan.members]
        slots = begun(self.journal, every, lambda slot: slot.until is None)
        return [slot for slot in slots if any(m.digest in living for m in slot.pack.members)]

    def _kept(self, members: Iterable[MemberSpec], since: int, until: int | None) -> list[Slot]:
        """Slots of these members that were at work between these rungs, or were to be once others had been ranked."""
        group, every = {m.digest for m in members}, [m.digest for m in self._members()]

        def wanted(slot: Slot) -> bool:
            there = (slot.since, slot.until) == (since, until)
            return there and any(member.digest in group for member in slot.pack.members)

        return begun(self.journal, every, wanted, or_placed=since > 0)

    def _placed(self, members: Sequence[MemberSpec], since: int) -> list[Slot]:
        """Slots for members that wait at an epoch: at first the plan's, later anew, each structure's together."""
        if not members:
            return []
        digests = {member.digest for member in members}
        if not since:
            found = (_only(slot, lambda m: m.digest in digests) for slot in self.ready.plan.slots)
            return [slot for slot in found if slot is not None]
        ready, resources, measured = self.ready, self.executor.resources(), measured_in(self.ready.run.path)
        groups = [members] if self.populations is None else self.populations.of(members)
        plans = [place_members(ready.job, ready.prepared, some, resources, measured) for some in groups]
        return [slot.model_copy(update={"since": since}) for plan in plans for slot in plan.slots]

    def _losers(self, *, failed: bool = False) -> list[Slot]:
        """Slots that seal the members which have stopped at a rung, as they were there.

        Args:
            failed: those that failed at an earlier start of the command and so have yet to come there; none while
                there are trials to ask for, which would be told of them.
        """
        done, (_, out) = sealed(self.ready.run.path), decided(self.journal)
        open_ = [m for m in self._members() if m.digest in out and m.digest not in done]
        names, again = failed_in(self.journal), frozenset[str]()
        if failed and self._has_asked_all():
            again = failed_in(self.journal, before=self.journal.of_kind("begin")[-1]["time"])
        open_ = [m for m in open_ if (m.id in again if failed else m.id not in names)]
        found = list[Slot]()
        for rung in sorted({out[member.digest] for member in open_}):
            some = [member for member in open_ if out[member.digest] == rung]
            found += [_until(slot, rung) for slot in self._placed(some, rung)]
        return found

    def _has_asked_all(self) -> bool:
        search = self.ready.written.search
        return search is not None and len(self._members()) >= search.num_trials * search.seeds_per_trial

    def _next(self, since: int) -> int:
        return next(rung for rung in self.ladder.rungs if rung > since)


def _is_aside(member: MemberSpec) -> bool:
    """Whether it is no trial, and ranked with none."""
    return member.is_single or member.is_again


def _until(slot: Slot, until: int) -> Slot:
    """The slot, which pauses at an epoch."""
    return slot.model_copy(update={"until": until})


def _only(slot: Slot, wanted: Callable[[MemberSpec], bool]) -> Slot | None:
    members = tuple(member for member in slot.pack.members if wanted(member))
    return slot.model_copy(update={"pack": Pack(members=members)}) if members else None
