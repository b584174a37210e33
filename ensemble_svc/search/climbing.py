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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ensemble_svc.course import Course, Ready, begun, note, settle
from ensemble_svc.listening import Listener
from ensemble_svc.plan.executor import Executor
from ensemble_svc.plan.plan import MemberSpec, Plan, Slot
from ensemble_svc.search.anew import begin_anew
from ensemble_svc.search.leaving import train_left
from ensemble_svc.search.populations import Populations
from ensemble_svc.search.ranking import decided, paused, trial_losses
from ensemble_svc.search.standing import Standing, is_aside, only, until_epoch
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.population import Generations
from ensemble_svc.store.commits import clear_passed, clear_spent
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
        begin_anew(ready.run, populations, [m for m in ready.plan.members if not is_aside(m)])
    climb = _Climb(Standing(ready, ladder, populations, executor), listener)
    with ready.clock.stage("rungs"):
        while (group := climb.lowest()) is not None:
            if (course := climb.alone(*group)) is not None:
                return course
            climb.rise(*group)
        return climb.top()


def ladder_of(ready: Ready) -> Ladder | Generations | None:
    """When the run's trials are ranked, before they have trained; None where they are not."""
    search = ready.job.search
    epochs = max(member.training.epochs for member in ready.plan.members if not is_aside(member))
    found = Ladder.of(search, epochs) or Generations.of(search, epochs)
    return found if found and found.rungs else None


@dataclass(frozen=True)
class _Climb:
    """A search on its way up."""

    at: Standing
    listener: Listener

    def lowest(self) -> tuple[list[MemberSpec], int] | None:
        """The members that have climbed least, with the epoch at which they wait; None when all are at the top."""
        by_epoch = self.at.by_epoch(self.at.to_rank())
        if self.at.populations is not None:
            by_epoch = self.at.spread(self.at.populations, by_epoch)
        since = min(by_epoch, default=self.at.ladder.rungs[-1])
        return (by_epoch[since], since) if since < self.at.ladder.rungs[-1] else None

    def alone(self, members: Sequence[MemberSpec], since: int) -> Course | None:
        """The rest of the way, where one new pack holds all members that still train: they need not leave it."""
        if self.at.populations is not None or len(members) < len(self.at.living()):
            return None
        if self.at.kept(members, since, self.at.next_rung(since)):
            return None
        slots = self.at.placed(members, since)
        return self._course(slots) if len(slots) == 1 else None

    def rise(self, members: Sequence[MemberSpec], since: int) -> None:
        """Train the members up to their next rung and decide which of them go on."""
        rung = self.at.next_rung(since)
        kept = self.at.kept(members, since, rung)
        placed = {member.digest for slot in kept for member in slot.pack.members}
        failed = self.at.failed(members)
        gone = failed if len(failed) < len(members) else set[str]()
        left = [member for member in members if member.digest not in placed | gone]
        fresh = [until_epoch(slot, rung) for slot in self.at.placed(left, since)]
        note(self.at.journal, fresh)
        there = paused(self.at.journal, rung)
        slots = [slot for slot in (*kept, *fresh) if any(m.digest not in there for m in slot.pack.members)]
        plan = self.at.ready.left((*slots, *self.at.losers()), self.at.executor.resources())
        course = Course(self.at.ready, self.at.ready.plan, plan)
        train_left(course, self.at.executor, self.listener)
        self._decide(members, rung)
        self._clear(rung)

    def top(self) -> Course:
        """What is left when no trial is ranked any more."""
        slots = list[Slot]()
        for since, some in sorted(self.at.by_epoch(self.at.to_rank()).items()):
            kept = self.at.kept(some, since, None)
            placed = {member.digest for slot in kept for member in slot.pack.members}
            left = [member for member in some if member.digest not in placed]
            slots += [*kept, *self.at.placed(left, since)]
        return self._course(slots)

    def _course(self, slots: Sequence[Slot]) -> Course:
        """The last slots of the run: these, those at work already, and those that seal what has stopped."""
        note(self.at.journal, slots)
        aside = (only(slot, is_aside) for slot in self.at.ready.plan.slots)
        others = settle(self.at.ready.run, [slot for slot in aside if slot is not None])
        every = (*self.at.lone(), *slots, *others, *self.at.losers(), *self.at.losers(failed=True))
        first = begun(self.at.journal, [member.digest for member in self.at.ready.plan.members])
        placed = {member.digest for slot in first for member in slot.pack.members}
        never = (only(slot, lambda m: m.digest not in placed) for slot in self.at.ready.plan.slots)
        whole = Plan(slots=(*first, *(slot for slot in never if slot is not None)))
        return Course(self.at.ready, whole, self.at.ready.left(every, self.at.executor.resources()))

    def _decide(self, members: Sequence[MemberSpec], rung: int) -> None:
        """Rank what has paused at a rung, and write down what becomes of it.

        Where the budget has kept others from coming, nobody is ranked among those who happened to come: it ends them.
        """
        found = paused(self.at.journal, rung)
        done = sealed(self.at.ready.run.path)
        there = [m for m in members if m.digest in found and m.digest not in done]
        away = [m for m in members if m.digest not in found and m.digest not in done]
        failed = self.at.failed(away)
        self.at.lost |= {m.digest for m in away} - (failed if there else set())
        if not there:
            return
        values, lost = {m.digest: found[m.digest] for m in there}, lost_in(self.at.journal)
        losses = trial_losses(self.at.ladder, self.at.members(), values, done, failed=failed, lost=lost)
        stopped, taken = dict[int, str](), dict[str, Any]()
        if len(failed) < len(away) and is_spent(self.at.ready.run.path):
            self.at.lost |= failed
            failed = set()
        elif isinstance(self.at.ladder, Ladder):
            stopped = self.at.ladder.stopped(losses, rung)
        elif self.at.populations is not None:
            taken = self.at.populations.taken(there, losses, rung)
        trials = {member.digest: self.at.ladder.trial(member.index) for member in there}
        on = [digest for digest, trial in trials.items() if trial not in stopped]
        out = {digest: stopped[trial] for digest, trial in trials.items() if trial in stopped}
        out |= dict.fromkeys(failed, f"{self._rule}: failed before epoch {rung}, so ranked last")
        facts = {"lost": [m.id for m in away if m.digest in failed], **({"taken": taken} if taken else {})}
        self.at.journal.append("rung", epoch=rung, on=on, out=out, **facts)

    @property
    def _rule(self) -> str:
        """The name of the scheduler."""
        assert self.at.ready.job.search is not None
        return self.at.ready.job.search.scheduler.name

    def _clear(self, rung: int) -> None:
        """Remove commits from which nobody goes on any more, now that a rung is decided."""
        run, done = self.at.ready.run.path, sealed(self.at.ready.run.path)
        if self.at.populations is None:
            clear_spent(run, {member.digest for member in self.at.ready.plan.members}, done)
            return
        reached, _ = decided(self.at.journal)
        behind = [
            m.digest for m in self.at.members() if m.digest not in done and reached.get(m.digest, 0) < rung
        ]
        clear_passed(run, rung, behind, reached)
