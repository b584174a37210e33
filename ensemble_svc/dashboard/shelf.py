"""The runs of a folder, kept up to date for all who ask."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Lock
from typing import Any

from ensemble_svc.dashboard.state import detail, summary
from ensemble_svc.errors import CorruptArtifact, StoreError
from ensemble_svc.store.reached import Reached, now, runs_in

SCAN_EVERY_S = 3.0
"""Between two looks for new runs."""
RUNS_UP_TO = 200
"""Runs that are shown, those that changed last."""


class Shelf:
    """The run at ``path``, or those of a storage folder.

    Raises:
        StoreError: there is no run.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._runs = path, dict[str, Reached]()
        self._faults: dict[str, str] = {}
        self._lock, self._scanned = Lock(), 0.0
        self._scan()
        if not self._runs:
            raise StoreError(f"{path} holds no run, and no folder of runs")

    def listed(self) -> dict[str, Any]:
        """Every run in a few numbers, and why others cannot be read."""
        with self._lock:
            self._scan()
            for name in self._runs:
                self._update(name)
            begun = {name: run for name, run in self._runs.items() if run.begun}
            newest = sorted(begun, key=lambda name: -begun[name].changed)[:RUNS_UP_TO]
            rows = [{"run": name, **summary(begun[name], now())} for name in newest]
            unread = [fault for name, fault in self._faults.items() if name not in begun]
            return {"runs": rows, "hidden": len(begun) - len(rows), "unread": unread[:RUNS_UP_TO]}

    def shown(self, name: str) -> dict[str, Any] | None:
        """One run with all that the page shows; None for a name that is not on the shelf."""
        with self._lock:
            run = self._runs.get(name)
            if run is None:
                return None
            self._update(name)
            if not run.begun:
                return None
            found = {"run": name, **detail(run, now())}
            if fault := self._faults.get(name):
                found["warnings"] = [fault, *found["warnings"]]
            return found

    def _scan(self) -> None:
        if self._runs and time.monotonic() - self._scanned < SCAN_EVERY_S:
            return
        self._scanned = time.monotonic()
        for path in runs_in(self.path):
            name = path.name if path == self.path else path.relative_to(self.path).as_posix()
            self._runs.setdefault(name, Reached(path))

    def _update(self, name: str) -> None:
        """Read on; a line that is damaged, or of another version, stops that and is told of."""
        if name in self._faults:
            return
        try:
            while self._runs[name].update():
                pass  # a second look finds nothing, or the damage at which the first one ended
        except CorruptArtifact as fault:
            self._faults[name] = str(fault)
