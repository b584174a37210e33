"""Sealed members: what training leaves behind for good, one folder each.

A member is sealed by one journal event that holds the hash of each of its files, its digest and
its results. The event binds the files to that member: files of another member, however whole, do
not fit it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ensemble_svc.errors import CorruptArtifact
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.store.atomic import read_verified, write_all
from ensemble_svc.store.document import encode_document
from ensemble_svc.store.history import encode_history
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.seals import Sealed as Sealed
from ensemble_svc.store.seals import candidates as candidates
from ensemble_svc.store.seals import eligible as eligible
from ensemble_svc.store.seals import intact as intact
from ensemble_svc.store.seals import parted as parted
from ensemble_svc.store.seals import sealed as sealed
from ensemble_svc.store.seals import virtual_id as virtual_id
from ensemble_svc.store.seals import virtual_ids as virtual_ids
from ensemble_svc.store.seals import was_cut as was_cut
from ensemble_svc.store.tensors import Tensors, decode, encode

BATCH_BYTES = 64 * 2**20
"""Files of members that are sealed together, at least one member's: it bounds the memory they take."""


@dataclass(frozen=True)
class Result:
    """What training leaves of one member."""

    member: MemberSpec
    weights: Mapping[str, Tensor]
    """The network's own weights at its last (or best) epoch, transform included."""
    averaged: Mapping[str, Tensor] | None
    """The Polyak average, when the recipe has one; then it is what predicts."""
    predictions: Mapping[str, Mapping[str, Tensor]]
    """Split → the member's outputs on that split's rows [N, …], or [S, N, …] those of what it stands for."""
    history: Sequence[Mapping[str, Any]]
    rows: np.ndarray[Any, Any]
    """[n] positions of its training rows, repeats included."""
    health: Mapping[str, Any]
    facts: Mapping[str, Any]
    """Status, epochs, seconds, where, … as the manifest shows them."""
    virtual: Sequence[Mapping[str, Tensor]] = ()
    """The weights of the snapshots or draws that are members of the ensemble in its place."""
    trained: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """Split → its own outputs [N, …], where others are members of the ensemble in its place."""


def seal(run: Path, results: Iterable[Result], *, batch_bytes: int = BATCH_BYTES) -> None:
    """Write the members' files, then the events that make them count, many members at a time.

    A member's event is written once all of its files are on the disk: killed at any moment, each member is
    sealed and whole, or not sealed. Members share the waits for the disk, up to ``batch_bytes`` of files.

    Raises:
        StoreError: the disk is full; what was sealed before is unharmed.
    """
    batch: list[tuple[MemberSpec, Mapping[str, Any], dict[str, bytes]]] = []
    size = 0
    for result in results:
        files = _files(result)
        batch.append((result.member, result.facts, files))
        size += sum(map(len, files.values()))
        if size >= batch_bytes:
            _seal_together(run, batch)
            batch, size = [], 0
    if batch:
        _seal_together(run, batch)


def _seal_together(
    run: Path, batch: Sequence[tuple[MemberSpec, Mapping[str, Any], Mapping[str, bytes]]]
) -> None:
    hashes = write_all({run / name: body for _, _, files in batch for name, body in files.items()})
    events = [
        {
            **facts,
            "member": member.id,
            "digest": member.digest,
            "index": member.index,
            "files": {name: hashes[run / name] for name in files},
            "spec": member.model_dump(mode="json"),
        }
        for member, facts, files in batch
    ]
    Journal(run / "journal.jsonl").append_all("sealed", events)


def _files(result: Result) -> dict[str, bytes]:
    """The member's files by their names in the run folder."""
    identity = {"member": result.member.id, "digest": result.member.digest}
    files = {"weights.safetensors": encode(result.weights, identity)}
    if result.averaged is not None:
        files["averaged.safetensors"] = encode(result.averaged, identity)
    for number, weights in enumerate(result.virtual, 1):
        files[snapshot_file(number)] = encode(weights, identity)
    for split, tensors in result.predictions.items():
        files[f"predictions-{split}.safetensors"] = encode(tensors, {**identity, "split": split})
    for split, tensors in result.trained.items():
        files[f"trained-{split}.safetensors"] = encode(tensors, {**identity, "split": split})
    files["history.parquet"] = encode_history(result.history)
    files["resample.npy"] = _npy(result.rows)
    files["health.json"] = encode_document(result.health)
    return {f"members/{result.member.id}/{name}": body for name, body in files.items()}


def snapshot_file(number: int) -> str:
    """Where a member's folder has the weights of its snapshot or draw ``number``, counted from 1."""
    return f"snapshot-{number}.safetensors"


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


def _npy(rows: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, rows)
    return buffer.getvalue()
