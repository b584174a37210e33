"""The reference executor: one slot after another, in this process.

Every other executor must train the same members as this one.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from ensemble_svc.errors import PlanError, TrainError
from ensemble_svc.plan.executor import (
    Call,
    Fit,
    Node,
    OnFailure,
    OnProgress,
    Report,
    Resources,
    refuse_oversized,
)
from ensemble_svc.plan.plan import Slot
from ensemble_svc.plan.race import Race

P = TypeVar("P")

LOAD_S = 2.5
"""Seconds in which Lightning loads, on two quiet cores."""


def this_machine() -> Resources:
    """The cores this process may use and the GPUs it can see; loads no torch, starts nothing."""
    cpus, gpus = _num_cpus(), float(_num_gpus())
    return Resources(cpus, gpus, (Node(platform.node(), cpus, gpus, _memory_bytes()),))


@dataclass(frozen=True)
class LocalExecutor:
    """Trains the slots in order; a slot that fails with TrainError or OSError is tried again at once."""

    retries: int = 2
    """How often one slot is tried again."""

    def resources(self) -> Resources:
        """This machine, one slot at a time."""
        loaded = "lightning" in sys.modules
        return replace(this_machine(), at_once=1, start_s=0.0 if loaded else LOAD_S)

    @contextmanager
    def workers(self, number: int, payload: P, *, cpus: int, gpus: float) -> Iterator[Call[P]]:
        """As :meth:`ensemble_svc.plan.executor.Executor.workers` says; tasks run one after another here."""
        yield lambda tasks: [task(payload) for task in tasks]

    def racing(self, races: Sequence[Race]) -> Self:
        """As :meth:`ensemble_svc.plan.executor.Executor.racing` says: refused."""
        names = ", ".join(dict.fromkeys(race.scheduler.name for race in races))
        raise PlanError(
            f"'{names}' compares trials that train beside each other, and this executor trains one after "
            "another; use Ray, or search.scheduler: halving"
        )

    def run(
        self,
        slots: Sequence[Slot],
        fit: Fit[P],
        payload: P,
        *,
        on_progress: OnProgress,
        on_failure: OnFailure,
    ) -> None:
        """As :meth:`ensemble_svc.plan.executor.Executor.run` says."""
        refuse_oversized(slots, self.resources())
        for slot in slots:
            self._try(slot, fit, payload, partial(on_progress, slot), on_failure)

    def _try(self, slot: Slot, fit: Fit[P], payload: P, report: Report, on_failure: OnFailure) -> None:
        for attempt in range(self.retries + 1):
            try:
                fit(payload, slot, report)
            except (TrainError, OSError) as fault:
                on_failure(slot, reason(fault), attempt < self.retries)
            else:
                return


def reason(fault: BaseException) -> str:
    """One line that says what went wrong: our own errors as they are, others with their type."""
    first = next(iter(str(fault).strip().splitlines()), "")
    if isinstance(fault, TrainError):
        return first or "training failed"
    return f"{type(fault).__name__}: {first}" if first else type(fault).__name__


def _num_cpus() -> int:
    """Cores of the process's affinity, or the whole cores of its container's quota if that is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    limit, _, period = quota.read_text().partition(" ") if quota.is_file() else ("max", "", "")
    return cores if limit == "max" else max(1, min(cores, int(limit) // int(period)))


def _memory_bytes() -> int:
    """Main memory, or what the process's container is allowed if that is less."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text().strip() if limit.is_file() else "max"
    return whole if allowed == "max" else min(whole, int(allowed))


def _num_gpus() -> int:
    """Devices of this machine that CUDA_VISIBLE_DEVICES does not hide."""
    devices = sum(re.fullmatch(r"nvidia\d+", path.name) is not None for path in Path("/dev").glob("nvidia*"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return devices
    return min(devices, sum(name.strip() not in ("", "-1") for name in visible.split(",")))
