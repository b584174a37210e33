"""What runs in each of the processes that share a member: one rank of its training.

The parent is told through a connection: a :class:`Progress` (it answers when it has passed it on), at the
end ``Done``, or what failed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

from ensemble_svc.errors import EnsembleSvcError, TrainError, family
from ensemble_svc.plan.plan import Slot
from ensemble_svc.plan.progress import Progress
from ensemble_svc.train.handover import Handover, take_up
from ensemble_svc.train.share import Share

PATIENCE = timedelta(hours=1)
"""How long a process waits for the others at most: a commit to slow storage, a driver that is busy."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Task:
    """What a rank has to do."""

    rank: int
    parent: int
    """Process id; a rank does not outlive its parent."""
    slot: Slot
    work: Handover
    """``(fit, payload)``; fit is called as ``fit(payload, slot, report, share)``."""
    meeting: str
    """A file through which the ranks find each other."""


@dataclass(frozen=True)
class Done:
    """The rank has done its work."""


@dataclass(frozen=True)
class Failure:
    """Why a rank ended before its work was done."""

    kind: type[EnsembleSvcError]
    reason: str
    """One line, or a message of ours."""
    trace: str
    at: float
    """When it happened, on the machine's monotonic clock; the first failure brings the others about."""
    silent: bool = False
    """The process died without a word of its own."""


def main(descriptor: int) -> None:
    """Do the task that comes through the connection, and leave the process.

    It leaves without the usual clearing up: what a collective library does then may wait for ranks that
    are gone.
    """
    parent = Connection(descriptor)
    task: Task = parent.recv()
    _die_with(task.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent as well, which decides
    ended = _attempt(task, parent)
    sys.stdout.flush()
    sys.stderr.flush()
    parent.send(ended)
    os._exit(0 if isinstance(ended, Done) else 1)


def _attempt(task: Task, parent: Connection) -> Done | Failure:
    try:
        _work(task, parent)
    except EnsembleSvcError as fault:
        return Failure(family(fault), str(fault), traceback.format_exc(), time.monotonic())
    except Exception as fault:  # noqa: BLE001  (raised again by the parent, as it would be in one process)
        first = next(iter(str(fault).strip().splitlines()), "")
        reason = f"{type(fault).__name__}: {first}"
        return Failure(TrainError, reason, traceback.format_exc(), time.monotonic())
    return Done()


def _work(task: Task, parent: Connection) -> None:
    fit, payload = take_up(task.work)
    warnings.filterwarnings("ignore", message=".*array is not writable")
    share = Share(task.rank, task.slot.processes)
    _meet(share, task)
    fit(payload, task.slot, _reporter(parent) if share.leads else _silent, share)


def _meet(share: Share, task: Task) -> None:
    on_gpu = task.slot.gpus > 0
    if on_gpu:
        torch.cuda.set_device(share.rank)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=dist.FileStore(task.meeting, share.processes),  # type: ignore[attr-defined]
        rank=share.rank,
        world_size=share.processes,
        timeout=PATIENCE,
        device_id=torch.device("cuda", share.rank) if on_gpu else None,
    )


def _reporter(parent: Connection) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        parent.send(progress)
        parent.recv()

    return report


def _silent(progress: Any) -> None:
    """Ranks after the first report nothing."""


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, however it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
