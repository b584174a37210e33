"""The manifest: the run's state in one document, made from the plan and the journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ensemble_svc.data.dataset import InputSchema
from ensemble_svc.plan.forecast import in_turn
from ensemble_svc.plan.plan import Forecast, MemberSpec, Plan, Slot
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.search import full_epochs, takes_cut
from ensemble_svc.store.document import read_document, write_document
from ensemble_svc.store.held import Span, device_seconds, seconds_by_pack, spans_in, wall_seconds
from ensemble_svc.store.journal import Event, Journal
from ensemble_svc.store.members import eligible, sealed, virtual_ids
from ensemble_svc.store.spending import NOT_STARTED, account, is_spent


def write_manifest(
    run: Path,
    job: JobSpec,
    members: Sequence[MemberSpec],
    plan: Plan,
    schema: InputSchema,
    *,
    rows: Mapping[str, int],
    files: Mapping[str, str],
    warnings: Sequence[str],
    seconds: Mapping[str, float],
    single: MemberSpec | None = None,
) -> dict[str, Any]:
    """Write ``manifest.json`` as of now and return it.

    Args:
        files: the run's own files (predictions, metrics, report) and their SHA-256.
        seconds: wall time of each stage of the pipeline.
        single: the single model that the ensemble is measured against, which is no member.
    """
    journal = Journal(run / "journal.jsonl")
    begun = journal.of_kind("begin")[-1]
    spans = spans_in(journal)
    seconds_of = seconds_by_pack(spans, plan.slots)
    seals, failures = sealed(run), {m: e for e in journal.of_kind("failed") for m in e["members"]}
    entries = [_entry(member, seals.get(member.digest), failures.get(member.id)) for member in members]
    if is_spent(run):
        entries = [e | {"reason": NOT_STARTED} if e["status"] == "pending" else e for e in entries]
    body = {
        "name": job.name,
        "task": job.task,
        "data_hash": begun["data_hash"],
        "split_hash": begun["split_hash"],
        "versions": begun["versions"],
        "rows": dict(rows),
        "input_schema": schema.model_dump(mode="json"),
        "members": entries,
        **({"single": _entry(single, seals.get(single.digest), failures.get(single.id))} if single else {}),
        "packs": [_pack(slot, seconds_of[slot.pack.id]) for slot in plan.slots],
        "candidates": candidate_ids(job, entries),
        "ensemble": current_ensemble(journal),
        "files": {"job.yaml": begun["job_sha256"], **files},
        "warnings": list(warnings),
        "seconds": dict(seconds),
        **_forecast_and_actual(journal, plan, seals, spans, whole=job.search is not None),
        **_budget(run, job),
    }
    write_document(run / "manifest.json", body)
    return body


NO_ENSEMBLE: dict[str, Any] = {"version": 0, "members": [], "weights": []}


def current_ensemble(journal: Journal) -> dict[str, Any]:
    """The last decision, with its number; without members before there is any."""
    events = journal.of_kind("ensemble")
    return {"version": len(events), **events[-1]["decision"]} if events else dict(NO_ENSEMBLE)


def decision_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest's ensemble was decided to be, without its version."""
    return {name: value for name, value in manifest["ensemble"].items() if name != "version"}


def is_reselected(journal: Journal) -> bool:
    """Whether the ensemble that is was chosen after training, by other choices than the job's."""
    events = journal.of_kind("ensemble")
    return bool(events) and bool(events[-1].get("reselected"))


def record_ensemble(journal: Journal, decision: Mapping[str, Any], *, reselected: bool = False) -> None:
    """Make this the ensemble; nothing is recorded where it is already.

    Args:
        decision: as JSON has it.
        reselected: whether by other choices than the job's.
    """
    events = journal.of_kind("ensemble")
    if not events or events[-1]["decision"] != decision:
        journal.append("ensemble", decision=decision, **({"reselected": True} if reselected else {}))


def amend_manifest(
    run: Path,
    files: Mapping[str, str],
    dropped: Sequence[str] = (),
    *,
    seconds: Mapping[str, float] | None = None,
    candidates: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Bring the manifest's ensemble up to date with the journal, and the hashes of the files just written.

    Args:
        dropped: files that the run no longer has; they are taken from the folder once the manifest is without them.
        seconds: wall time of each stage of the pipeline, where there are more by now.
        candidates: what the ensemble is chosen from, where that has changed.
    """
    body = read_document(run / "manifest.json")
    body = {name: value for name, value in body.items() if name not in ("schema_version", "checksum")}
    body |= {
        "ensemble": current_ensemble(Journal(run / "journal.jsonl")),
        "files": {n: sha for n, sha in {**body["files"], **files}.items() if n not in dropped},
        "seconds": body["seconds"] if seconds is None else dict(seconds),
        "candidates": body["candidates"] if candidates is None else list(candidates),
    }
    write_document(run / "manifest.json", body)
    for name in dropped:
        (run / name).unlink(missing_ok=True)
    return body


def _forecast_and_actual(
    journal: Journal, plan: Plan, seals: Mapping[str, Event], spans: Sequence[Span], *, whole: bool
) -> dict[str, Any]:
    """What training was expected to take, and what it took. Either is None where it is unknown.

    Of the last training alone only attempts since the forecast count, so that a run that went on compares like with
    like.

    Args:
        whole: whether all rounds of a search count, in all starts: of each the forecast at its first beginning. Where
            the last one trained beside other runs, which nobody forecast, both are None.
    """
    expected, actual, since = dict[int, Any](), None, 0.0
    for event in journal.of_kind("forecast", "trained"):
        if event["event"] == "trained":
            actual = {
                "seconds": event["seconds"],
                "device_hours": device_seconds([s for s in spans if s.began >= since], plan.slots) / 3600,
                "peak_memory_bytes": _peak(seal for seal in seals.values() if seal["time"] >= since),
            }
        elif whole:
            expected.setdefault(event.get("members", 0), event["forecast"])
            actual = None
        else:
            expected, since, actual = {0: event["forecast"]}, event["time"], None
    if whole and expected.keys().isdisjoint({0, sum(1 for _ in plan.members)}):  # 0: of an earlier version
        return {"forecast": None, "actual": None}
    if whole and actual is not None:
        actual["seconds"] = wall_seconds(spans)
    return {"forecast": _summed(list(expected.values())), "actual": actual}


def _summed(forecasts: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """The forecast of all, one after another; None where that of one is unknown."""
    known = [Forecast.model_validate(each) for each in forecasts if each is not None]
    found = in_turn(known) if len(known) == len(forecasts) else None
    return None if found is None else found.model_dump(mode="json")


def candidate_ids(job: JobSpec, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the ensemble is chosen from.

    Args:
        entries: of the manifest's members.
    """
    done = [entry for entry in entries if entry["status"] == "done"]
    full = full_epochs(job.search, job.training.epochs)
    may = eligible(done, cut=takes_cut(job.search), full=full)
    return [own for entry, one in zip(done, may, strict=True) if one for own in virtual_ids(entry)]


def _budget(run: Path, job: JobSpec) -> dict[str, Any]:
    """What was used of the search's budget; nothing where it has none."""
    if job.search is None or job.search.budget is None:
        return {}
    return {"budget": account(run, job.search.budget, job.search.num_trials)}


def _peak(seals: Iterable[Event]) -> int | None:
    """The most memory of any slot; None where it is unknown."""
    return max((seal["peak_bytes"] for seal in seals if seal.get("peak_bytes")), default=None)


def _entry(member: MemberSpec, seal: Event | None, failure: Event | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"status": "pending", "reason": "", "metrics": {}, "files": {}}
    if seal is not None:
        dropped = {"event", "time", "member", "digest", "index", "spec"}
        facts = {key: value for key, value in seal.items() if key not in dropped}
    elif failure is not None:
        facts |= {"status": "failed", "reason": failure["reason"]}
    return {
        "id": member.id,
        "digest": member.digest,
        "index": member.index,
        "seed": member.job_seed,
        "hyperparameters": dict(member.varied),
        "spec": member.model_dump(mode="json"),
        **facts,
    }


def _pack(slot: Slot, seconds: float) -> dict[str, Any]:
    return {
        "id": slot.pack.id,
        "members": [member.id for member in slot.pack.members],
        "cpus": slot.cpus,
        "gpus": slot.gpus,
        "reason": slot.reason,
        "seconds": seconds,
    }
