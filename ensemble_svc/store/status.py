"""What a run has reached: its seals, and of members that are not sealed yet what ``reached`` knows of them."""

from __future__ import annotations

import json
from typing import Any

from ensemble_svc.errors import CorruptArtifact, StoreError
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.atomic import hash_file
from ensemble_svc.store.folder import Folder
from ensemble_svc.store.outlook import group_of
from ensemble_svc.store.placed import placed
from ensemble_svc.store.reached import Member, Reached
from ensemble_svc.store.seals import intact, sealed
from ensemble_svc.store.spending import NOT_STARTED, is_spent


def status_of(run: Folder) -> dict[str, Any]:
    """Name, state and members of a run; each member with its status, epochs and metrics so far."""
    events = run.journal.of_kind("begin", "plan", "start", "retry", "finished")
    starts = [e for e in events if e["event"] == "begin"]
    if not starts:
        raise StoreError(f"{run.path} holds no run that was begun; give the training command again")
    begun = starts[-1]
    seals = sealed(run.path)
    finished = any(e["event"] == "finished" and e["time"] >= begun["time"] for e in events)
    started, known = {e["pack"] for e in events if e["event"] == "start"}, Reached(run.path)
    waits = NOT_STARTED if is_spent(run.path) else ""
    members: dict[str, dict[str, Any]] = {}
    single: dict[str, dict[str, Any]] = {}
    found = list(placed((e for e in events if e["event"] == "plan"), seals))
    if not finished or any(member.digest not in seals for member in found):
        known.update()
    for member in found:
        entry: dict[str, Any] = {"id": member.id, "index": member.index, "pack": member.pack}
        if member.is_single:
            entry["of_epochs"] = member.epochs
            single.clear()
        (single if member.is_single else members)[member.id] = entry | _member(
            seals.get(member.digest),
            known.find(member.index),
            going=known.state == "running",
            waits="" if member.pack in started else waits,
        )
    return {
        "name": json.loads(begun["job"])["name"],
        "path": str(run.path),
        "state": "finished" if finished else known.state,
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


def _member(seal: dict[str, Any] | None, known: Member | None, *, going: bool, waits: str) -> dict[str, Any]:
    """How far a member has come, in the words of a live look at the run.

    Args:
        going: whether somebody drives the run.
        waits: why a member that has not begun waits.
    """
    if seal is not None:
        kept = ("status", "reason", "epochs", "best_epoch", "metrics", "seconds", "where")
        return {key: seal[key] for key in kept} | {"stopped": bool(seal.get("stopped"))}
    if known is None:
        return {"status": "pending", "reason": waits, "epochs": 0, "metrics": {}}
    status = "retrying" if known.status == "retrying" and going else group_of(known, going=going)
    reason = waits if status == "pending" else known.reason
    return {"status": status, "reason": reason, "epochs": known.epoch, "metrics": {}}
