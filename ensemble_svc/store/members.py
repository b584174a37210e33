"""Sealed members: what training leaves behind for good, one folder each.

A member is sealed by one journal event that holds the hash of each of its files, its digest and
its results. The event binds the files to that member: files of another member, however whole, do
not fit it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from ensemble_svc.errors import CorruptArtifact
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.store.atomic import hash_file, read_verified, write_atomic
from ensemble_svc.store.document import write_document
from ensemble_svc.store.journal import Event, Journal
from ensemble_svc.store.tensors import Tensors, decode, encode

Sealed = dict[str, Event]
"""Seal events by member digest."""


def seal(
    run: Path,
    member: MemberSpec,
    *,
    weights: Mapping[str, Tensor],
    averaged: Mapping[str, Tensor] | None,
    predictions: Mapping[str, Mapping[str, Tensor]],
    history: Sequence[Mapping[str, Any]],
    rows: np.ndarray[Any, Any],
    health: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Write a member's files, then the event that makes them count.

    Args:
        weights: the network's own weights at its last (or best) epoch, transform included.
        averaged: the Polyak average, when the recipe has one; then it is what predicts.
        predictions: split → the member's outputs on that split's rows.
        rows: [n] positions of its training rows, repeats included.
        facts: status, epochs, seconds, where, … as the manifest shows them.
    """
    folder = run / "members" / member.id
    identity = {"member": member.id, "digest": member.digest}
    files = {"weights.safetensors": encode(weights, identity)}
    if averaged is not None:
        files["averaged.safetensors"] = encode(averaged, identity)
    for split, tensors in predictions.items():
        files[f"predictions-{split}.safetensors"] = encode(tensors, {**identity, "split": split})
    files["history.parquet"] = _parquet(history)
    files["resample.npy"] = _npy(rows)
    hashes = {name: write_atomic(folder / name, body) for name, body in files.items()}
    hashes["health.json"] = write_document(folder / "health.json", health)
    named = {f"members/{member.id}/{name}": sha for name, sha in hashes.items()}
    event = {**facts, "member": member.id, "digest": member.digest, "index": member.index, "files": named}
    event["spec"] = member.model_dump(mode="json")
    Journal(run / "journal.jsonl").append("sealed", **event)


def sealed(run: Path) -> Sealed:
    """The seal events of a run by member digest; the last one counts, and an unsealing undoes it."""
    found: Sealed = {}
    for event in Journal(run / "journal.jsonl").of_kind("sealed", "unsealed"):
        found.pop(event["digest"], None)
        if event["event"] == "sealed":
            found[event["digest"]] = event
    return found


def intact(run: Path, event: Event) -> str | None:
    """The first file of a sealed member that is missing or altered, or None."""
    for name, sha in event["files"].items():
        if hash_file(run / name) != sha:
            return str(name)
    return None


def read_tensors(run: Path, files: Mapping[str, str], member: str, name: str) -> Tensors:
    """Tensors of one file of a sealed member, checked against the hash and the member's identity.

    Raises:
        CorruptArtifact: other bytes, or bytes that belong to another member.
    """
    key = f"members/{member}/{name}"
    if key not in files:
        raise CorruptArtifact(f"member {member} of {run} has no {name}")
    tensors, meta = decode(read_verified(run / key, files[key]), run / key)
    if meta.get("member") != member:
        raise CorruptArtifact(f"{run / key} belongs to member {meta.get('member')}, not to {member}")
    return tensors


def _parquet(history: Sequence[Mapping[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame(list(history)).to_parquet(buffer, index=False)
    return buffer.getvalue()


def _npy(rows: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, rows)
    return buffer.getvalue()
