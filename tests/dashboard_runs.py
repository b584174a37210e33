"""Run folders to look at, made in a moment: a journal and progress as a driver and its slots write them."""

from __future__ import annotations

import json
import math
import os
import random
import socket
from pathlib import Path
from typing import Any

from ensemble_svc.plan.members import make_members
from ensemble_svc.plan.plan import MemberSpec, Pack, Slot
from ensemble_svc.plan.progress import MemberProgress, MemberStatus, Progress
from ensemble_svc.spec.load import parse_job
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.progress import note_progress


def write_run(
    path: Path,
    *,
    members: int = 16,
    epochs: int = 12,
    upto: int = 7,
    pack: int = 8,
    word: str = "plain",
    running: bool = True,
    seed: int = 0,
) -> None:
    """A search under way: packs of the first half have ended, those of the third quarter train, the rest wait.

    Args:
        upto: epoch that the packs under way have reached.
        word: stands wherever a user's or a stranger's words can stand.
    """
    rng = random.Random(seed)
    job = parse_job(
        {
            "name": path.name,
            "data": {"source": "digits"},
            "model": {"name": "mlp", "hidden": [8]},
            "training": {"epochs": epochs},
            "search": {
                "space": {
                    "training.optimizer.lr": {"loguniform": [1e-4, 0.1]},
                    "model.dropout": {"uniform": [0, 0.5]},
                    "model.activation": {"choice": ["relu", "gelu", "tanh"]},
                },
                "trials": members,
                "scheduler": {"name": "halving", "factor": 2, "min_epochs": 3},
            },
        }
    )
    specs = make_members(job, "d" * 64, "s" * 64)
    path.mkdir(parents=True)
    journal = Journal(path / "journal.jsonl")
    journal.append(
        "begin", job=job.model_dump_json(), directory="/", job_sha256="", data_hash="", split_hash=""
    )
    slots = [
        Slot(pack=Pack(members=tuple(specs[k : k + pack])), cpus=2, gpus=0.0, reason=word)
        for k in range(0, members, pack)
    ]
    journal.append("plan", slots=[slot.model_dump_json() for slot in slots])
    for number, slot in enumerate(slots):
        part = number / len(slots)
        if part < 0.75:
            _train(path, journal, slot, epochs if part < 0.5 else upto, epochs, word=word, rng=rng)
        if part < 0.5:
            _seal(journal, slot, epochs, word=word, rng=rng)
    journal.append("retry", pack=slots[0].pack.id, members=[], reason=f"its machine was lost ({word})")
    if running:
        owner = {"pid": os.getpid(), "host": socket.gethostname()}
        (path / ".driver.json").write_text(json.dumps(owner))


def _train(
    path: Path, journal: Journal, slot: Slot, upto: int, epochs: int, *, word: str, rng: random.Random
) -> None:
    ids = [member.id for member in slot.pack.members]
    journal.append("start", pack=slot.pack.id, attempt="a", members=ids, node=f"node-{word}", pid=17)
    for epoch in range(1, upto + 1):
        told = tuple(_progress(member, k, epoch, rng) for k, member in enumerate(slot.pack.members))
        note_progress(path, Progress(slot.pack.id, epoch, epochs, told, seconds=2.0 * epoch))


def _progress(member: MemberSpec, position: int, epoch: int, rng: random.Random) -> MemberProgress:
    ended = 3 if position % 2 else 6 if position % 4 else 99
    status: MemberStatus = "training" if epoch < ended else "stopped"
    return MemberProgress(
        member.id, status, min(epoch, ended), _fall(member, epoch, rng), "nll", _fall(member, epoch, rng)
    )


def _fall(member: MemberSpec, epoch: int, rng: random.Random) -> float:
    rate = float(member.varied["training.optimizer.lr"])
    floor = 0.08 + 0.1 * abs(math.log10(rate) + 2)
    return floor + 2.2 * math.exp(-epoch / (1 + 3 * abs(math.log10(rate) + 2))) + abs(rng.gauss(0, 0.01))


def _seal(journal: Journal, slot: Slot, epochs: int, *, word: str, rng: random.Random) -> None:
    sealed: list[dict[str, Any]] = []
    for k, member in enumerate(slot.pack.members):
        ended = 3 if k % 2 else 6 if k % 4 else epochs
        sick = member.index % 29 == 28
        sealed.append(
            {
                "member": member.id,
                "digest": member.digest,
                "index": member.index,
                "status": "diverged" if sick else "done",
                "reason": f"the loss was not finite ({word})" if sick else "",
                "sick": None,
                "stopped": ended < epochs,
                "epochs": ended,
                "metrics": {} if sick else {"validation": {"nll": _fall(member, ended, rng)}},
                "where": {"node": f"node-{word}", "device": "cpu", "pid": 17, "cpus": 2},
                "seconds": 24.0,
            }
        )
    journal.append_all("sealed", sealed)
