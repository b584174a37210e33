"""Trials of several packs that are ranked together: all of them train up to a rung, and the best go on from there.

At a rung each pack pauses, its state committed. The driver ranks the trials, writes down which of them stop, and
only then lets anything go on: those that stop are sealed as they are, the others are gathered into new packs, slice
by slice. Trials that one pack holds need none of it; they are ranked inside it, with the same outcome. Each step
follows from the journal alone, so a run that was stopped anywhere goes on as if it had not been.

A trial that fails for good on its way to a rung is ranked last there, and stops. It holds up nobody, and no later
start ranks it again: one that finds all trials asked for trains it up to that rung, and seals it as stopped. Where
nobody came to the rung, as with a full disk, nothing is decided, and the next start tries all of them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ensemble_svc.course import Course, Ready, begun, note, settle
from ensemble_svc.listening import Listener
from ensemble_svc.plan.executor import Executor
from ensemble_svc.plan.plan import MemberSpec, Pack, Plan, Slot
from ensemble_svc.plan.progress import Progress
from ensemble_svc.planning import measured_in, place_members
from ensemble_svc.search.ranking import decided, failed_in, paused, trial_losses
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.store.commits import clear_spent
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.members import sealed
from ensemble_svc.store.spending import is_spent
from ensemble_svc.train.rungs import lost_in
from ensemble_svc.train.start import fit_own


def climbed(ready: Ready, executor: Executor, listener: Listener) -> Course:
    """The run with its trials past every rung at which packs must wait for each other; what is left needs no other.

    Call it under the run's lock, once the run has begun.

    Raises:
        EnsembleSvcError: as training; the same command again goes on.
    """
    epochs = max(member.training.epochs for member in ready.plan.members if not _is_aside(member))
    ladder = Ladder.of(ready.job.search, epochs)
    if ladder is None or not ladder.rungs:
        return ready.course(executor.resources())
    climb = _Climb(ready, ladder, executor, listener)
    with ready.clock.stage("rungs"):
        while (group := climb.lowest()) is not None:
            if (course := climb.alone(*group)) is not None:
                return course
            climb.rise(*group)
        return climb.top()


def train_left(course: Course, executor: Executor, listener: Listener) -> None:
    """Train the slots that are left."""
    if not course.left.slots:
        return
    listener.planned(course.left, ())

    def failed(slot: Slot, reason: str, again: bool) -> None:
        course.failed(slot, reason, again)
        listener.failure(slot, reason, again)

    def heard(slot: Slot, progress: Progress) -> None:
        course.heard(progress)
        listener.progress(slot, progress)

    payloads = {slot.pack.id: course.payload for slot in course.left.slots}
    placed = executor.racing(course.races) if course.races else executor
    placed.run(course.left.slots, fit_own, payloads, on_progress=heard, on_failure=failed)


@dataclass
class _Climb:
    """A search on its way up."""

    ready: Ready
    ladder: Ladder
    executor: Executor
    listener: Listener
    lost: set[str] = field(default_factory=set)
    """Members that came to no rung since the command was given, where that decides nothing."""

    @property
    def journal(self) -> Journal:
        return self.ready.run.journal

    def lowest(self) -> tuple[list[MemberSpec], int] | None:
        """The members that have climbed least, with the epoch at which they wait; None when all are at the top."""
        reached, _ = decided(self.journal)
        apart = {member.digest for slot in self._lone() for member in slot.pack.members}
        by_epoch: dict[int, list[MemberSpec]] = {}
        for member in self._living():
            if member.digest not in apart:
                by_epoch.setdefault(reached.get(member.digest, 0), []).append(member)
        since = min(by_epoch, default=self.ladder.rungs[-1])
        return (by_epoch[since], since) if since < self.ladder.rungs[-1] else None

    def alone(self, members: Sequence[MemberSpec], since: int) -> Course | None:
        """The rest of the way, where one new pack holds all members that still train: they need not leave it."""
        if len(members) < len(self._living()) or self._kept(members, since, self._next(since)):
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
        known = {member.digest for member in self.ready.plan.members}
        clear_spent(self.ready.run.path, known, sealed(self.ready.run.path))

    def top(self) -> Course:
        """What is left when no trial is ranked any more."""
        since = self.ladder.rungs[-1]
        apart = {member.digest for slot in self._lone() for member in slot.pack.members}
        rest = [member for member in self._living() if member.digest not in apart]
        kept = self._kept(rest, since, None)
        placed = {member.digest for slot in kept for member in slot.pack.members}
        left = [member for member in rest if member.digest not in placed]
        return self._course([*kept, *self._placed(left, since)])

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
        if len(failed) < len(away) and is_spent(self.ready.run.path):
            self.lost |= failed
            stopped, failed = dict[int, str](), set[str]()
        else:
            stopped = self.ladder.stopped(losses, rung)
        trials = {member.digest: self.ladder.trial(member.index) for member in there}
        on = [digest for digest, trial in trials.items() if trial not in stopped]
        out = {digest: stopped[trial] for digest, trial in trials.items() if trial in stopped}
        out |= dict.fromkeys(
            failed, f"{self.ladder.scheduler.name}: failed before epoch {rung}, so ranked last"
        )
        names = [member.id for member in away if member.digest in failed]
        self.journal.append("rung", epoch=rung, on=on, out=out, lost=names)

    def _failed(self, members: Iterable[MemberSpec]) -> set[str]:
        """The digests of those that have failed for good and were not placed anew since."""
        names = failed_in(self.journal)
        return {member.digest for member in members if member.id in names}

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
        ready, resources = self.ready, self.executor.resources()
        plan = place_members(ready.job, ready.prepared, members, resources, measured_in(ready.run.path))
        return [slot.model_copy(update={"since": since}) for slot in plan.slots]

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
