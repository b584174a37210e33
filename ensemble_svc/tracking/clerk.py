"""A process of its own that tells trackers how runs go, for a driver that never waits for it.

It is started with run folders and hears on its standard input of each, by number, when it begins and when it has
ended, a line each. It answers with lines of JSON: a warning once where a tracker cannot be told, and what came of the
end. What it tells it reads from the run folder. When its driver is gone, it says so to the trackers and ends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ensemble_svc.spec.trackers import Mlflow, Tracker, Wandb
from ensemble_svc.store.reached import Reached
from ensemble_svc.tracking.faults import faults_of, shortly
from ensemble_svc.tracking.live_mlflow import LiveMlflow
from ensemble_svc.tracking.live_wandb import LiveWandb

EVERY_S = 1.0
SHARE = 0.1
"""The part of its time in which it tells: it trains on the same cores."""
AGAIN_S, AGAIN_UP_TO_S = 10.0, 300.0
"""Until a tracker that failed is tried again; doubled each time."""
LEAVE_S = 20.0
"""In which it says good-bye once its driver is gone."""
LOCK = ".tracker.lock"
HTTP = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
"""What a server is given, unless the environment says otherwise: by itself MLflow would wait for minutes."""


class Desk:
    """One run and its tracker."""

    def __init__(self, number: int, run: Path, say: Say) -> None:
        self._number, self._run, self._say = number, run, say
        self._reached, self._lock = Reached(run), FileLock(run / LOCK, timeout=0)
        self._live: LiveMlflow | LiveWandb | None = None
        self._again_at, self._again_s, self._warned = 0.0, AGAIN_S, False

    def tell(self) -> None:
        """What is new, if the tracker can be told; a warning once if it cannot."""
        if time.monotonic() < self._again_at:
            return
        self._reached.update()
        tracker = self._tracker()
        try:
            self._lock.acquire()
            self._live = self._live or _live(self._reached, tracker, self._run)
            self._live.tell()
        except Timeout:
            return
        except faults_of(tracker) as fault:
            self._fail(tracker, fault)

    def stop(self) -> None:
        """Say that nobody drives the run any more; a tracker that cannot be told is left as it is."""
        self._reached.update()
        with suppress(*faults_of(self._tracker())):
            if self._live is not None:
                self._live.tell()
                self._live.stop()

    def end(self) -> None:
        """Bring the tracker up to date with a run that has ended."""
        from ensemble_svc.store.run import (
            Run,
        )  # here, since they load torch, which training may need the cores for
        from ensemble_svc.tracking.track import track

        self._reached.update()
        try:
            with self._lock.acquire(timeout=LEAVE_S):
                if isinstance(self._live, LiveWandb):
                    self._live.stop()
                self._live = None
                words = track(Run(self._run), self._tracker())
        except Timeout:
            why = "the process of an earlier start still tells it"
            words = (
                f"{self._tracker().package} was not brought up to date ({why}); the same command tries again"
            )
        self._say(self._number, done=words)

    def _tracker(self) -> Tracker:
        return self._reached.spec().compute.track

    def _fail(self, tracker: Tracker, fault: Exception) -> None:
        self._live = None
        self._again_at = time.monotonic() + self._again_s
        self._again_s = min(2 * self._again_s, AGAIN_UP_TO_S)
        if not self._warned:
            self._warned = True
            what = f"{tracker.package} cannot be told how the run goes ({shortly(fault)})"
            self._say(
                self._number,
                warning=f"{what}; training goes on; what is missing is sent at its end, or by the same command",
            )


def _live(reached: Reached, tracker: Tracker, run: Path) -> LiveMlflow | LiveWandb:
    match tracker:
        case Mlflow():
            return LiveMlflow(reached, tracker, run)
        case Wandb():
            return LiveWandb(reached, tracker, run)
        case _:
            raise ValueError(f"{tracker.name} is told nothing")


class Say:
    """Answers to the driver, who has standard output to itself: what packages print there goes nowhere from now on.

    MLflow prints where a run can be looked at, each time one ends on a server.
    """

    def __init__(self) -> None:
        self._file = os.dup(1)
        os.dup2(2, 1)

    def __call__(self, number: int, **facts: str) -> None:
        """Tell the driver of a run; one that is gone hears nothing."""
        line = json.dumps({"run": number, **facts}).encode() + b"\n"
        with suppress(OSError):
            os.write(self._file, line)


class _Orders:
    """Lines of standard input, as they come."""

    def __init__(self) -> None:
        self._rest, self.over = b"", False

    def within(self, seconds: float) -> list[str]:
        """The lines that are there within some seconds, or the first of them."""
        if not select.select([0], [], [], seconds)[0]:
            return []
        body = os.read(0, 65536)
        self.over = not body
        *lines, self._rest = (self._rest + body).split(b"\n")
        return [line.decode() for line in lines]


def main(folders: Sequence[str]) -> None:
    """Tell of these run folders until the driver is gone, or has had each of them ended."""
    for name, value in HTTP.items():
        os.environ.setdefault(name, value)
    os.nice(10)
    say = Say()
    desks = {number: Desk(number, Path(folder), say) for number, folder in enumerate(folders)}
    going, orders, pause_s = set[int](), _Orders(), EVERY_S
    while not orders.over:
        for line in orders.within(pause_s):
            word, _, text = line.partition(" ")
            if word == "end":
                desks[int(text)].end()
                going.discard(int(text))
            else:
                going.add(int(text))
        began = time.monotonic()
        for number in going:
            desks[number].tell()
        pause_s = max(EVERY_S, (time.monotonic() - began) / SHARE)
    signal.alarm(int(LEAVE_S))
    for number in going:
        desks[number].stop()


if __name__ == "__main__":
    main(sys.argv[1:])
