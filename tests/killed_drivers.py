"""Drivers to be killed: each is a process forked off one that has imported everything and run nothing."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from ensemble_svc.store.run import Run

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["ensemble_svc.cli.main", "ensemble_svc.cli.training", "ensemble_svc.pipeline"])


def start(act: Callable[..., Any], *values: Any) -> ForkServerProcess:
    """A process of its own that does nothing but ``act(*values)``, its words unheard."""
    process = FORKS.Process(target=_unheard, args=(act, *values), daemon=True)
    process.start()
    return process


def command(*words: str) -> None:
    """``ensemble-svc WORDS`` in this process."""
    from ensemble_svc.cli.main import run

    sys.argv = ["ensemble-svc", *words]
    run()


def kill(driver: ForkServerProcess) -> None:
    """SIGKILL while it is at work, and wait until it has ended."""
    assert driver.is_alive(), "it ended by itself"
    driver.kill()
    driver.join()


def wait_for(run: Path, event: str, count: int) -> None:
    """Until the journal holds so many events of a kind."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (run / "journal.jsonl").exists() and len(Run(run).journal.of_kind(event)) >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"no {count} '{event}' in {run}")


def _unheard(act: Callable[..., Any], *values: Any) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    act(*values)
