"""A member over several processes of one machine: they are started, listened to and ended here.

They are plain child processes with a Python of their own: this works in any parent (a Ray worker, a
notebook, a script without a main guard), since nothing of it is run again. Each has a CPU share, or one
of the GPUs that the parent sees, and they meet through a file, so no port is fought for.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from ensemble_svc.errors import TrainError
from ensemble_svc.plan.executor import Report
from ensemble_svc.plan.plan import Slot
from ensemble_svc.plan.progress import Progress
from ensemble_svc.store.members import sealed
from ensemble_svc.train.attempt import MOST_RESTARTS
from ensemble_svc.train.fit import fit
from ensemble_svc.train.handover import Handover, lay_down
from ensemble_svc.train.payload import Payload
from ensemble_svc.train.rank import Done, Failure, Task

GRACE_S = 1.0
"""After a first failure, how long the other processes have to say what they saw."""
ENTRY = "import sys; from ensemble_svc.train.rank import main; main(int(sys.argv[1]))"
DEFAULTS = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", "TORCH_CPP_LOG_LEVEL": "ERROR"}
"""The libraries listen on this machine alone and keep their advice to themselves, unless told otherwise."""


class RankFailed(Exception):
    """The cause of a slot's failure: the traceback of the process that failed, as text."""


@dataclass(frozen=True)
class Child:
    """One of the processes."""

    rank: int
    process: subprocess.Popen[bytes]
    connection: Connection


def fit_together(payload: Payload, slot: Slot, report: Report) -> None:
    """As ``train.fit.fit``, the slot's member trained by ``slot.processes`` processes at once.

    A member that is sick and starts anew gets new processes, which find in its commits how far it is.

    Raises:
        TrainError: a process failed or was killed; the others have been ended.
        EnsembleSvcError: as ``fit`` says.
    """
    for _ in range(1 + MOST_RESTARTS):
        run_together(fit, payload, slot, report)
        if all(member.digest in sealed(Path(payload.run)) for member in slot.pack.members):
            return


def run_together(fit: Callable[..., None], payload: Any, slot: Slot, report: Report) -> None:
    """Call ``fit(payload, slot, report, share)`` in each of the slot's processes until all have returned.

    ``report`` is called in this process, and the one that reports waits for it.
    """
    with (
        TemporaryDirectory(prefix="ensemble-svc-") as folder,
        _handed_over((fit, payload)) as work,
        _children(slot, work, Path(folder) / "meeting") as children,
    ):
        _listen(children, report)


@contextmanager
def _handed_over(value: Any) -> Iterator[Handover]:
    handover = lay_down(value)
    try:
        yield handover
    finally:
        os.close(handover.descriptor)


@contextmanager
def _children(slot: Slot, work: Handover, meeting: Path) -> Iterator[list[Child]]:
    """The slot's processes, at work; none is left after the block, whatever ends it."""
    children: list[Child] = []
    try:
        for rank in range(slot.processes):
            children.append(_start(rank, slot, work))
            children[-1].connection.send(Task(rank, os.getpid(), slot, work, str(meeting)))
        yield children
    finally:
        for child in children:
            child.process.kill()
            child.process.wait()
            child.connection.close()


def _start(rank: int, slot: Slot, work: Handover) -> Child:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", ENTRY, str(theirs.fileno())],
            env=_environment(rank, slot),
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), work.descriptor),
        )
    return Child(rank, process, Connection(ours.detach()))


def _environment(rank: int, slot: Slot) -> dict[str, str]:
    """Ours, with what tells a process its place, and the same modules to import."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": slot.processes}
    threads = {"OMP_NUM_THREADS": max(1, slot.cpus // slot.processes)}
    modules = {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    return DEFAULTS | os.environ | {name: str(v) for name, v in (place | threads | modules).items()}


def _listen(children: Sequence[Child], report: Report) -> None:
    """Pass on what the processes report until all are done.

    Raises:
        EnsembleSvcError: what made the first of them fail.
    """
    busy = {child.connection: child for child in children}
    while busy:
        for ready in wait(list(busy)):
            child = busy[ready]  # type: ignore[index]
            match _heard(child):
                case Progress() as progress:
                    report(progress)
                    child.connection.send(None)
                case Done():
                    del busy[child.connection]
                case Failure() as failure:
                    del busy[child.connection]
                    _give_up(failure, busy)


def _heard(child: Child) -> Progress | Done | Failure:
    try:
        message: Progress | Done | Failure = child.connection.recv()
    except (EOFError, ConnectionError):
        return _silent_death(child)
    return message


def _silent_death(child: Child) -> Failure:
    status = child.process.wait()
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    reason = f"process {child.rank + 1} of the member's {how}"
    return Failure(TrainError, reason, reason, time.monotonic(), silent=True)


def _give_up(first: Failure, busy: dict[Connection, Child]) -> NoReturn:
    """Raise the failure that brought the others about: a silent death, else the earliest one."""
    failures, until = [first], time.monotonic() + GRACE_S
    while busy and (ready := wait(list(busy), timeout=max(0.0, until - time.monotonic()))):
        for child in [busy[connection] for connection in ready]:  # type: ignore[index]
            heard = _heard(child)
            if not isinstance(heard, Progress):
                del busy[child.connection]
            if isinstance(heard, Failure):
                failures.append(heard)
    root = min(failures, key=lambda failure: (not failure.silent, failure.at))
    raise root.kind(root.reason) from RankFailed(root.trace)
