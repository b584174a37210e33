"""One run on its way: what its folder holds already, what is left to train, how it ends.

A course holds no executor: several of them can train on one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path

from ensemble_svc.conclude import conclude
from ensemble_svc.errors import QuorumError
from ensemble_svc.finding import Found, record
from ensemble_svc.foreign import extend_metrics
from ensemble_svc.plan.executor import Resources
from ensemble_svc.plan.forecast import with_forecast
from ensemble_svc.plan.plan import Pack, Plan, Slot
from ensemble_svc.plan.progress import Progress
from ensemble_svc.plan.race import VERDICT, Race, Verdict
from ensemble_svc.plan.single import parts
from ensemble_svc.planning import Prepared
from ensemble_svc.report.html import write_report
from ensemble_svc.spec.direction import HIGHER_IS_BETTER
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.schedulers import Asha, Median
from ensemble_svc.spec.search import Repeated, SearchSpec
from ensemble_svc.store.begin import begin, check_folder
from ensemble_svc.store.commits import clear_spent
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.manifest import amend_manifest, record_ensemble, write_manifest
from ensemble_svc.store.members import intact, sealed
from ensemble_svc.store.progress import note_progress
from ensemble_svc.store.run import Run
from ensemble_svc.store.spending import NOT_STARTED
from ensemble_svc.store.turns import ANEW
from ensemble_svc.tracking.reporter import Reporter
from ensemble_svc.train.payload import Payload


@dataclass
class Clock:
    """Wall seconds of the pipeline's stages, by name; they add up, also where a stage comes more than once."""

    seconds: dict[str, float] = field(default_factory=dict)
    _inside: list[float] = field(default_factory=list)
    """Seconds of the stages inside each of those that are under way."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage, without those inside it."""
        began = time.monotonic()
        self._inside.append(0.0)
        yield
        spent = time.monotonic() - began
        own = self.seconds.get(name, 0.0) + spent - self._inside.pop()
        self.seconds[name] = round(own, 3)
        if self._inside:
            self._inside[-1] += spent


@dataclass(frozen=True)
class Ready:
    """A job that nothing speaks against: its data are read and its members placed; nothing is written."""

    run: Run
    job: JobSpec
    """With a number for ``training.optimizer.lr``."""
    written: JobSpec
    """As the user wrote it, which is what the folder keeps and compares."""
    prepared: Prepared
    plan: Plan
    """Where every member would run, whatever the folder holds already."""
    clock: Clock
    found: Found | None = None
    """How the learning rate was found, where that was now."""
    reporter: Reporter | None = None
    """What tells the job's tracker how the run goes."""

    def check(self) -> None:
        """Make sure that the job may begin in its folder.

        Raises:
            OtherJob: as ``store.begin.check_folder``.
        """
        check_folder(
            self.run.path,
            self.written,
            data_hash=self.prepared.dataset.hash,
            split_hash=self.prepared.split.hash,
        )

    def begin(self, directory: Path) -> None:
        """Record the start; the caller holds the run's lock."""
        begin(
            self.run.path,
            self.written,
            data_hash=self.prepared.dataset.hash,
            split_hash=self.prepared.split.hash,
            directory=directory,
        )
        if self.found is not None:
            record(self.run.journal, self.found)
        if self.reporter is not None:
            self.reporter.begin(self.run.path)

    def course(self, resources: Resources) -> Course:
        """What is left to do once the run has begun, and is mended."""
        whole = Plan(slots=settle(self.run, self.plan.slots))
        return Course(self, whole, self.left(whole.slots, resources))

    def left(self, slots: Sequence[Slot], resources: Resources) -> Plan:
        """The slots with members to train, on what the job and the machines of today give them."""
        done = sealed(self.run.path)
        left = [s for s in slots if any(m.digest not in done for m in s.pack.members)]
        cpus = max(machine.cpus for machine in resources.machines)
        gpus = (
            0.0 if self.job.compute.device == "cpu" else max(machine.gpus for machine in resources.machines)
        )
        within = Plan(slots=tuple(slot.within(cpus=cpus, gpus=gpus) for slot in left))
        return with_forecast(within, resources)


@dataclass(frozen=True, eq=False)
class Course:
    """A run that has begun."""

    ready: Ready
    whole: Plan
    """Every slot of the run, as its members have trained or will train."""
    left: Plan
    """The slots with members to train."""

    @property
    def run(self) -> Run:
        """Its folder."""
        return self.ready.run

    @property
    def payloads(self) -> dict[str, Payload]:
        """What the slots that are left get besides their members, by pack: one value for all."""
        prepared = self.ready.prepared
        payload = Payload(
            dataset=prepared.dataset,
            split=prepared.split,
            schema=prepared.schema,
            run=str(self.run.path.resolve()),
            commit_every_s=self.ready.job.compute.commit_every_s,
            health=self.ready.job.compute.health == "auto",
            search=_bare(self.ready.job),
            tensorboard=self.ready.job.compute.writes_events(sum(1 for _ in self.whole.members)),
        )
        return {slot.pack.id: payload for slot in self.left.slots}

    def heard(self, progress: Progress) -> None:
        """Note the end of an epoch for whoever looks at the run meanwhile."""
        note_progress(self.run.path, progress)
        if self.ready.reporter is not None:
            self.ready.reporter.look()

    @property
    def races(self) -> tuple[Race, ...]:
        """Its search, where the trials that are left are stopped as their results come."""
        search, journal = self.ready.job.search, self.run.journal
        if search is None or not isinstance(search.scheduler, Asha | Median):
            return ()
        names = [field.name for field in fields(Verdict)]
        earlier = [Verdict(**{name: event[name] for name in names}) for event in journal.of_kind(VERDICT)]

        def record(verdict: Verdict) -> None:
            journal.append(VERDICT, **verdict.to_json())

        race = Race(
            search.scheduler,
            search.metric in HIGHER_IS_BETTER,
            max(member.training.epochs for member in self.whole.members),
            frozenset(slot.pack.id for slot in self.left.slots),
            tuple(earlier),
            record,
        )
        return (race,)

    def failed(self, slot: Slot, reason: str, again: bool) -> None:
        """Record an attempt that failed."""
        members = [member.id for member in slot.pack.members]
        kind = "retry" if again else "failed"
        self.run.journal.append(kind, pack=slot.pack.id, members=members, reason=reason)

    def has_sealed(self, slot: Slot) -> bool:
        """Whether every member of the slot is sealed."""
        done = sealed(self.run.path, [member.digest for member in slot.pack.members])
        return all(member.digest in done for member in slot.pack.members)

    def finish(self, *, train_s: float) -> None:
        """Combine, measure and report what is sealed.

        Args:
            train_s: wall seconds that the run's slots took, with those that trained beside them.
        """
        job, prepared, clock = self.ready.job, self.ready.prepared, self.ready.clock
        clock.seconds["train"] = round(train_s, 3)
        members, single = parts(tuple(self.whole.members))
        files: dict[str, str] = {}

        write_manifest(
            self.run.path,
            job,
            members,
            self.whole,
            prepared.schema,
            rows={n: len(getattr(prepared.split, n)) for n in ("train", "validation", "test")},
            files=files,
            warnings=prepared.warnings,
            seconds=clock.seconds,
            single=single,
        )

        def publish() -> None:
            """Nothing but these has changed: no member trains any more."""
            amend_manifest(self.run.path, files, seconds=clock.seconds)

        with clock.stage("evaluate"):
            decision, written = conclude(self.run, job, prepared, members, single)
            files |= written
            if decision is not None:
                record_ensemble(self.run.journal, decision.model_dump(mode="json"))
        publish()
        if "metrics.json" in files and job.evaluate.ood:
            with clock.stage("ood"):
                files |= extend_metrics(self.run, job, self.run.directory, prepared)
            publish()
        if "metrics.json" in files:
            with clock.stage("report"):
                files["report.html"] = write_report(self.run)
            publish()
        clear_spent(self.run.path, {member.digest for member in members}, sealed(self.run.path))
        self.run.journal.append("finished", files=files)

    def track(self) -> None:
        """Have the job's tracker told of the finished run, or write down what kept it from that."""
        if self.ready.reporter is None:
            return
        words = self.ready.reporter.finish(self.run.path, sum(1 for _ in self.whole.members))
        if words:
            self.run.journal.append("untracked", reason=words)

    def shortfall(self) -> QuorumError | None:
        """What to raise where fewer members finished than ``ensemble.quorum`` asks."""
        quorum = self.ready.job.ensemble.quorum
        entries = [e for e in self.run.manifest()["members"] if e["reason"] != NOT_STARTED]
        done = sum(entry["status"] == "done" for entry in entries)
        if done >= quorum * len(entries) - 1e-9:
            return None
        others = [f"{e['id']}: {e['status']}, {e['reason']}" for e in entries if e["status"] != "done"]
        return QuorumError(
            f"{done} of {len(entries)} members finished; ensemble.quorum asks for {quorum:.0%}.\n  "
            + "\n  ".join(others[:10])
            + (f"\n  … and {len(others) - 10} more" if len(others) > 10 else "")
            + f"\nWhat did finish is kept in {self.run.path}."
        )


def mend(run: Run) -> None:
    """Unseal damaged members; they train again."""
    for event in sealed(run.path).values():
        broken = intact(run.path, event)
        if broken is not None:
            run.journal.append("unsealed", digest=event["digest"], member=event["member"], file=broken)


def settle(run: Run, slots: Sequence[Slot]) -> tuple[Slot, ...]:
    """Slots for the members of these: packs that have something to show stay as they were composed.

    A pack keeps its members while it has a commit or a sealed member to go on from; one that failed
    for good, or never got that far, is placed anew as the job says today, which the journal is told.
    """
    kept = begun(run.journal, [member.digest for slot in slots for member in slot.pack.members])
    placed = {member.digest for slot in kept for member in slot.pack.members}
    fresh = [slot for slot in (_without(slot, placed) for slot in slots) if slot is not None]
    note(run.journal, fresh)
    return (*kept, *fresh)


def begun(
    journal: Journal,
    digests: Collection[str],
    wanted: Callable[[Slot], bool] = lambda slot: True,
    *,
    or_placed: bool = False,
) -> list[Slot]:
    """The slots of some members that have something to go on from, each member in the first of them.

    Of slots of the same pack from the same epoch on, the last one counts.

    Args:
        wanted: which slots count.
        or_placed: slots that have nothing yet count too, unless they failed for good.
    """
    known, placed = set(digests), set[str]()
    has_begun, kept = _begun(journal, or_placed=or_placed), list[Slot]()
    for slot in _noted(journal):
        own = {member.digest for member in slot.pack.members}
        if wanted(slot) and has_begun(slot) and own <= known and not own & placed:
            kept.append(slot)
            placed |= own
    return kept


def note(journal: Journal, slots: Sequence[Slot]) -> None:
    """Write down how the slots are composed, before any of them trains."""
    if slots:
        journal.append("plan", slots=[slot.model_dump_json() for slot in slots])


def _noted(journal: Journal) -> list[Slot]:
    """The slots as they were composed, without those of members that have begun anew since."""
    slots: dict[tuple[str, int], Slot] = {}
    for event in journal.of_kind("plan", ANEW):
        if event["event"] == ANEW:
            over = set(event["members"])
            slots = {k: s for k, s in slots.items() if over.isdisjoint(m.digest for m in s.pack.members)}
        else:
            slots |= {(slot.pack.id, slot.since): slot for slot in map(slot_of, event["slots"])}
    return list(slots.values())


@lru_cache(maxsize=4096)
def slot_of(text: str) -> Slot:
    """A slot as the journal has it; a search reads them again at every rung."""
    return Slot.from_json(text)


def _begun(journal: Journal, *, or_placed: bool = False) -> Callable[[Slot], bool]:
    """Whether a slot's pack, or a part into which it was halved, has a commit or a sealed member to go on from.

    A failure for good takes back what came before it.

    Args:
        or_placed: a slot that has nothing yet, and has not failed, counts too.
    """
    last, failed, halved = dict[str, int](), dict[str, int](), set[str]()
    held: dict[str, set[str]] = {}
    for number, event in enumerate(journal.of_kind("commit", "sealed", "failed", "halved", ANEW)):
        match event["event"]:
            case "anew":
                over = set(event["members"])
                last = {pack: n for pack, n in last.items() if over.isdisjoint(held.get(pack, ()))}
            case "failed":
                failed[event["pack"]] = number
            case "halved":
                halved.add(event["pack"])
            case kind:
                last[event["pack"]] = number
                own = event["members"] if kind == "commit" else [event["digest"]]
                held.setdefault(event["pack"], set()).update(own)

    def latest(slot: Slot) -> int:
        parts = slot.halves() if slot.pack.id in halved else ()
        return max([last.get(slot.pack.id, -1), *map(latest, parts)])

    return lambda slot: latest(slot) > failed.get(slot.pack.id, -2 if or_placed else -1)


def _without(slot: Slot, placed: set[str]) -> Slot | None:
    members = tuple(m for m in slot.pack.members if m.digest not in placed)
    return slot.model_copy(update={"pack": Pack(members=members)}) if members else None


def _bare(job: JobSpec) -> SearchSpec | None:
    """What slots need of the search: not the trials that it has settled."""
    settled: dict[str, object] = {"first": (), **({"again": {}} if isinstance(job.search, Repeated) else {})}
    return job.search and job.search.model_copy(update=settled)
