"""What a run has reached, read from its journal alone; safe while the run goes on."""

from __future__ import annotations

import json
from typing import Any

from ensemble_svc.errors import CorruptArtifact, StoreError
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.atomic import hash_file
from ensemble_svc.store.folder import Folder
from ensemble_svc.store.placed import placed
from ensemble_svc.store.seals import intact, sealed
from ensemble_svc.store.spending import NOT_STARTED, is_spent


def status_of(run: Folder) -> dict[str, Any]:
    """Name, state and members of a run; each member with its status, epochs and metrics so far."""
    events = run.journal.of_kind("begin", "plan", "start", "commit", "failed", "retry", "finished")
    starts = [e for e in events if e["event"] == "begin"]
    if not starts:
        raise StoreError(f"{run.path} holds no run that was begun; give the training command again")
    begun = starts[-1]
    seals = sealed(run.path)
    epochs = {e["pack"]: e["epoch"] for e in events if e["event"] == "commit"}
    started = {e["pack"]: e["time"] for e in events if e["event"] == "start"}
    failed = {m: e["reason"] for e in events if e["event"] == "failed" for m in e["members"]}
    waits = NOT_STARTED if is_spent(run.path) else ""
    members: dict[str, dict[str, Any]] = {}
    single: dict[str, dict[str, Any]] = {}
    for member in placed((e for e in events if e["event"] == "plan"), seals):
        entry: dict[str, Any] = {"id": member.id, "index": member.index, "pack": member.pack}
        if member.is_single:
            entry["of_epochs"] = member.epochs
            single.clear()
        (single if member.is_single else members)[member.id] = entry | _member(
            seals.get(member.digest),
            started.get(member.pack),
            epochs.get(member.pack, 0),
            failed.get(member.id),
            waits=waits,
        )
    finished = [e for e in events if e["event"] == "finished" and e["time"] >= begun["time"]]
    return {
        "name": json.loads(begun["job"])["name"],
        "path": str(run.path),
        "state": "finished" if finished else "unfinished",
        "starts": len(starts),
        "epochs": JobSpec.from_json(begun["job"]).training.epochs,
        "members": sorted(members.values(), key=lambda entry: entry["index"]),
        **({"single": own} if (own := next(iter(single.values()), None)) else {}),
        "retries": [e for e in events if e["event"] == "retry"],
    }


def damage(run: Folder) -> list[str]:
    """Every file of the run that is missing or is not what was written."""
    broken = [name for event in sealed(run.path).values() if (name := intact(run.path, event))]
    try:
        files = run.manifest()["files"]
    except CorruptArtifact:
        finished = run.journal.of_kind("finished")
        return [*broken, "manifest.json"] if finished else broken
    return broken + [name for name, sha in files.items() if hash_file(run.path / name) != sha]


def _member(
    seal: dict[str, Any] | None, started: float | None, committed: int, failure: str | None, *, waits: str
) -> dict[str, Any]:
    if seal is not None:
        kept = ("status", "reason", "epochs", "best_epoch", "metrics", "seconds", "where")
        return {key: seal[key] for key in kept}
    if failure is not None:
        return {"status": "failed", "reason": failure, "epochs": committed, "metrics": {}}
    reason = "" if started else waits
    return {
        "status": "training" if started else "pending",
        "reason": reason,
        "epochs": committed,
        "metrics": {},
    }
