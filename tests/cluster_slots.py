"""Slots without training, for tests of executors: what a slot does is written in its payload."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ensemble_svc.errors import TrainError, UnknownChoice
from ensemble_svc.plan.executor import Report
from ensemble_svc.plan.plan import MemberSpec, Pack, Slot
from ensemble_svc.plan.progress import MemberProgress, Progress
from ensemble_svc.spec.job import NoResample
from ensemble_svc.spec.model import Mlp
from ensemble_svc.spec.training import TrainingSpec

EPOCHS = 3


def make_slot(index: int, *, cpus: int = 1, gpus: float = 0.0, members: int = 2) -> Slot:
    """A slot whose first member has the given index times the pack's size."""
    specs = tuple(
        MemberSpec(
            index=index * members + k,
            job_seed=0,
            task="classification",
            data_hash="d" * 64,
            split_hash="s" * 64,
            preprocess=(),
            augment=(),
            standardize_target=False,
            resample=NoResample(),
            model=Mlp(),
            training=TrainingSpec(),
        )
        for k in range(members)
    )
    return Slot(pack=Pack(members=specs), cpus=cpus, gpus=gpus, reason="a test")


def shared_slot(processes: int, cpus: int = 1) -> Slot:
    """A slot of one member over so many processes."""
    return make_slot(0, members=1, cpus=cpus).model_copy(update={"processes": processes})


@dataclass(frozen=True)
class Payload:
    """What the slots share."""

    folder: str
    """Where each attempt leaves a file with what it saw."""
    x: npt.NDArray[np.float64] = field(default_factory=lambda: np.arange(1_000_000, dtype=np.float64))
    acts: Mapping[str, str] = field(default_factory=dict)
    """What goes wrong, by pack id; nothing when absent."""
    epoch_s: float = 0.0


def fit_slot(payload: Payload, slot: Slot, report: Report) -> None:
    """Three epochs; the member's number is a function of data, member and epoch alone."""
    attempt = len(list(Path(payload.folder).glob(f"{slot.pack.id}.*")))
    seen = Path(payload.folder, f"{slot.pack.id}.{attempt}")
    seen.write_text(json.dumps(_surroundings(payload)))
    for epoch in range(1, EPOCHS + 1):
        time.sleep(payload.epoch_s)
        members = tuple(
            MemberProgress(m.id, "training", epoch, float(payload.x[m.index * 7 + epoch]), "nll", 1 / epoch)
            for m in slot.pack.members
        )
        report(Progress(slot.pack.id, epoch, EPOCHS, members, epoch * payload.epoch_s))
        if epoch == 2:
            seen.write_text(json.dumps(_surroundings(payload)))
            _act(payload.acts.get(slot.pack.id, ""), attempt)


def _act(what: str, attempt: int) -> None:
    match what:
        case "always":
            raise ValueError("the transform of column 3 divided by zero\nsecond line")
        case "diverge once" if attempt == 0:
            raise TrainError("the loss of member 4 is not finite")
        case "killed once" if attempt == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        case "refuse":
            raise UnknownChoice("optimizer", "adamm", ["adamw", "sgd"])
        case "unreadable":
            raise OSError(28, "No space left on device")


def _surroundings(payload: Payload) -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "title": Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").decode(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "folder": os.getcwd(),
        "writeable": payload.x.flags.writeable,
        "environment": sorted(os.environ),
    }
