"""One driver at a time per run folder; the kernel frees the lock when its holder dies."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ensemble_svc.errors import RunInUse
from ensemble_svc.store.atomic import refuse


@contextmanager
def sole_driver(run: Path) -> Iterator[None]:
    """Hold the run for as long as the block lasts.

    Raises:
        RunInUse: another live process holds it; the message says which.
    """
    owner = run / ".driver.json"
    lock = FileLock(run / ".driver.lock", timeout=0)
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise RunInUse(f"{run} is in use{_holder(owner)}. Wait for it, or stop it first.") from None
    except OSError as fault:
        refuse(fault, run)
    try:
        facts = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        owner.write_text(json.dumps(facts))
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _holder(owner: Path) -> str:
    try:
        facts = json.loads(owner.read_text())
        return f" by process {facts['pid']} on {facts['host']} since {facts['since']}"
    except (OSError, ValueError, KeyError):
        return " by another process"
