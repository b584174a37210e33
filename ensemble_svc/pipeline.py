"""The arrows in order: job → data → members → plan → trained members → ensemble → numbers → report."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ensemble_svc.conclude import conclude
from ensemble_svc.errors import QuorumError, StoreError
from ensemble_svc.measuring import plan_measured, recorded
from ensemble_svc.plan.executor import Executor, Resources
from ensemble_svc.plan.forecast import with_forecast
from ensemble_svc.plan.plan import Plan, Slot
from ensemble_svc.plan.progress import Progress
from ensemble_svc.planning import Prepared, make_plan, measured_in, prepare
from ensemble_svc.report.html import write_report
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.begin import begin
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.lock import sole_driver
from ensemble_svc.store.manifest import write_manifest
from ensemble_svc.store.members import intact, sealed
from ensemble_svc.store.run import Run
from ensemble_svc.train.assemble import check_networks
from ensemble_svc.train.payload import Payload
from ensemble_svc.train.start import fit


@dataclass
class Listener:
    """What the caller wants to hear while a run goes on; by default nothing."""

    measuring: Callable[[float], None] = lambda seconds: None
    """A few steps will be timed, for so many seconds at most."""
    planned: Callable[[Plan, Sequence[str]], None] = lambda plan, warnings: None
    """The plan of what is left to train, and warnings about the data."""
    progress: Callable[[Slot, Progress], None] = lambda slot, progress: None
    failure: Callable[[Slot, str, bool], None] = lambda slot, reason, again: None


@dataclass
class Clock:
    """Wall seconds of the pipeline's stages, by name."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage."""
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 3)


def train(
    job: JobSpec, *, out: Path | None, directory: Path, executor: Executor, listener: Listener | None = None
) -> Run:
    """Train what is not yet sealed, then combine, measure and report; the same call again goes on.

    Args:
        out: the run folder; ``compute.storage/name`` when absent.
        directory: where relative paths and the user's own modules are looked up.

    Raises:
        QuorumError: fewer members finished than ``ensemble.quorum`` asks; the run folder says which.
        EnsembleSvcError: a job, data, folder or cluster that someone has to mend first.
    """
    listener, clock = listener or Listener(), Clock()
    run = Run(out or Path(job.compute.storage).expanduser() / job.name)
    _refuse_url(run.path)
    with clock.stage("data"):
        prepared = prepare(job, directory)
    with clock.stage("plan"):
        plan = make_plan(job, prepared, executor.resources(), measured_in(run.path))
        check_networks(plan.members, prepared.schema)
    with sole_driver(run.path):
        begin(
            run.path,
            job,
            data_hash=prepared.dataset.hash,
            split_hash=prepared.split.hash,
            directory=directory,
        )
        with clock.stage("measure"):
            plan = plan_measured(run, job, prepared, plan, executor, tell=listener.measuring)
        whole = _settle(run, plan)
        left = with_forecast(_left(run, whole, job, executor.resources()), executor.resources())
        listener.planned(left, prepared.warnings)
        with clock.stage("train"), recorded(run.journal, left):
            _train(run, job, prepared, left, executor, listener)
        _finish(run, job, prepared, whole, clock)
    _require_quorum(run, job)
    return run


def _refuse_url(path: Path) -> None:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise StoreError(
            f"{path}: a run folder is a local or shared path; object stores are not supported yet"
        )


def _settle(run: Run, plan: Plan) -> Plan:
    """The plan of the whole run: packs that have something to show stay as they were composed.

    A pack keeps its members while it has a commit or a sealed member to go on from; one that failed
    for good, or never got that far, is placed anew as the job says today. Damaged members are
    unsealed; they train again.
    """
    journal = run.journal
    for event in sealed(run.path).values():
        broken = intact(run.path, event)
        if broken is not None:
            journal.append("unsealed", digest=event["digest"], member=event["member"], file=broken)
    known, placed = {member.digest for member in plan.members}, set[str]()
    begun, kept = _begun_packs(journal), []
    for slot in (Slot.from_json(text) for event in journal.of_kind("plan") for text in event["slots"]):
        digests = {member.digest for member in slot.pack.members}
        if slot.pack.id in begun and digests <= known and not digests & placed:
            kept.append(slot)
            placed |= digests
    fresh = [slot for slot in (_without(slot, placed) for slot in plan.slots) if slot is not None]
    if fresh:
        journal.append("plan", slots=[slot.model_dump_json() for slot in fresh])
    return Plan(slots=(*kept, *fresh))


def _begun_packs(journal: Journal) -> set[str]:
    """Packs with a commit or a sealed member, and no failure for good after it."""
    begun: set[str] = set()
    for event in journal.of_kind("commit", "sealed", "failed"):
        if event["event"] == "failed":
            begun.discard(event["pack"])
        else:
            begun.add(event["pack"])
    return begun


def _without(slot: Slot, placed: set[str]) -> Slot | None:
    members = tuple(m for m in slot.pack.members if m.digest not in placed)
    return (
        slot.model_copy(update={"pack": slot.pack.model_copy(update={"members": members})})
        if members
        else None
    )


def _left(run: Run, plan: Plan, job: JobSpec, resources: Resources) -> Plan:
    """The slots with members to train, on what the job and the machines of today give them."""
    done = sealed(run.path)
    left = [s for s in plan.slots if any(m.digest not in done for m in s.pack.members)]
    cpus = max(machine.cpus for machine in resources.machines)
    gpus = 0.0 if job.compute.device == "cpu" else max(machine.gpus for machine in resources.machines)
    return Plan(
        slots=tuple(s.model_copy(update={"cpus": min(s.cpus, cpus), "gpus": min(s.gpus, gpus)}) for s in left)
    )


def _train(
    run: Run, job: JobSpec, prepared: Prepared, plan: Plan, executor: Executor, listener: Listener
) -> None:
    if not plan.slots:
        return

    def failed(slot: Slot, reason: str, again: bool) -> None:
        members = [member.id for member in slot.pack.members]
        run.journal.append("retry" if again else "failed", pack=slot.pack.id, members=members, reason=reason)
        listener.failure(slot, reason, again)

    payload = Payload(
        dataset=prepared.dataset,
        split=prepared.split,
        schema=prepared.schema,
        run=str(run.path.resolve()),
        commit_every_s=job.compute.commit_every_s,
    )
    executor.run(plan.slots, fit, payload, on_progress=listener.progress, on_failure=failed)


def _finish(run: Run, job: JobSpec, prepared: Prepared, plan: Plan, clock: Clock) -> None:
    members = sorted(plan.members, key=lambda member: member.index)
    files: dict[str, str] = {}

    def publish() -> None:
        write_manifest(
            run.path,
            job,
            members,
            plan,
            prepared.schema,
            rows={n: len(getattr(prepared.split, n)) for n in ("train", "validation", "test")},
            files=files,
            warnings=prepared.warnings,
            seconds=clock.seconds,
        )

    publish()
    with clock.stage("evaluate"):
        files |= conclude(run, job, prepared, members)
    publish()
    if "metrics.json" in files:
        with clock.stage("report"):
            files["report.html"] = write_report(run)
        publish()
    Journal(run.path / "journal.jsonl").append("finished", files=files)


def _require_quorum(run: Run, job: JobSpec) -> None:
    entries = run.manifest()["members"]
    done = sum(entry["status"] == "done" for entry in entries)
    if done < job.ensemble.quorum * len(entries) - 1e-9:
        others = [f"{e['id']}: {e['status']}, {e['reason']}" for e in entries if e["status"] != "done"]
        raise QuorumError(
            f"{done} of {len(entries)} members finished; ensemble.quorum asks for {job.ensemble.quorum:.0%}.\n  "
            + "\n  ".join(others[:10])
            + (f"\n  … and {len(others) - 10} more" if len(others) > 10 else "")
            + f"\nWhat did finish is kept in {run.path}."
        )
