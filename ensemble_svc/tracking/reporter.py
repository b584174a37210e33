"""The driver's side of trackers: a process of its own tells them how runs go, and training never waits for it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ensemble_svc.spec.trackers import Tracker

END_S, END_S_PER_MEMBER = 60.0, 0.1
"""How long a finished run waits for its tracker: what is missing then is sent by the same command."""
CLOSE_S = 5.0


class Reporter:
    """The process, for the runs of one command that have a tracker.

    Args:
        trackers: by run folder.
        warn: hears of a tracker that cannot be told, once.
    """

    def __init__(self, trackers: Mapping[Path, Tracker], warn: Callable[[str], None]) -> None:
        self._trackers, self._warn = dict(trackers), warn
        self._numbers = {run: number for number, run in enumerate(trackers)}
        self._rest, self._done, self._warned = b"", dict[int, str](), set[int]()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "ensemble_svc.tracking.clerk",
                *(str(r.absolute()) for r in trackers),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )

    def begin(self, run: Path) -> None:
        """The run has begun."""
        if run in self._numbers:
            self._order("begin", run)

    def look(self) -> None:
        """Hear what the process has said since; waits for nothing."""
        self._hear(0.0)

    def finish(self, run: Path, num_members: int) -> str:
        """The run has ended: have its tracker brought up to date; returns what kept it from that, or nothing.

        One who was warned while the run went on is not warned again.
        """
        if run not in self._numbers:
            return ""
        number, package = self._numbers[run], self._trackers[run].package
        wait_s = END_S + END_S_PER_MEMBER * num_members
        until = time.monotonic() + wait_s
        self._order("end", run)
        while number not in self._done and (left_s := until - time.monotonic()) > 0:
            if not self._hear(left_s):
                break
        late = time.monotonic() >= until
        why = f"it took more than {wait_s:.0f} s" if late else "the process that tells it has died"
        lost = f"{package} was not brought up to date ({why}); the same command tries again"
        words = self._done.pop(number, lost)
        if words and number not in self._warned:
            self._warn(words)
        return words

    def close(self) -> None:
        """Let the process say good-bye, and end it."""
        with suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()

    @property
    def _stdin(self) -> Any:
        return self._process.stdin

    @property
    def _stdout(self) -> Any:
        return self._process.stdout

    def _order(self, word: str, run: Path) -> None:
        with suppress(OSError):  # it has died, which the end says
            os.write(self._stdin.fileno(), f"{word} {self._numbers[run]}\n".encode())

    def _hear(self, wait_s: float) -> bool:
        """Take in what was said; False once nothing more can come."""
        if not select.select([self._stdout], [], [], wait_s)[0]:
            return True
        body = os.read(self._stdout.fileno(), 65536)
        *lines, self._rest = (self._rest + body).split(b"\n")
        for said in map(json.loads, lines):
            if "warning" in said:
                self._warned.add(said["run"])
                self._warn(said["warning"])
            else:
                self._done[said["run"]] = said["done"]
        return bool(body)


@contextmanager
def reporting(trackers: Mapping[Path, Tracker], warn: Callable[[str], None]) -> Iterator[Reporter | None]:
    """A reporter for as long as the block lasts; none where no run has a tracker."""
    asked = {run: tracker for run, tracker in trackers.items() if tracker.package}
    if not asked:
        yield None
        return
    reporter = Reporter(asked, warn)
    try:
        yield reporter
    finally:
        reporter.close()
