"""An executor that keeps the budgets of the searches whose slots it runs.

It counts in the driver, by what the slots tell at their ends of epochs, so that it does not matter where they train.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from ensemble_svc.plan.executor import Call, Executor, Fit, OnFailure, OnProgress, Resources
from ensemble_svc.plan.plan import Slot
from ensemble_svc.plan.progress import Progress
from ensemble_svc.plan.race import Race
from ensemble_svc.spec.budgets import BudgetSpec
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.spending import EVENT, Used, raise_sign, settle_sign, used_in
from ensemble_svc.train.payload import Payload

NOTE_EVERY_S = 5.0
"""Seconds between two notes of what is used: a driver that is killed forgets no more."""


@dataclass
class _Attempt:
    """A start of a slot, as it last told of itself."""

    devices: float
    seconds: float
    told: float
    ended: bool
    before: float = 0.0
    """Seconds of the slot's earlier starts."""
    failed: bool = False

    def lasted(self, now: float) -> float:
        """Seconds of all of its starts by now."""
        return self.before + self.seconds + (0.0 if self.ended else now - self.told)


@dataclass
class Meter:
    """What one run uses of its budget while an executor runs."""

    run: Path
    budget: BudgetSpec
    began: float = field(default_factory=time.monotonic)
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def __post_init__(self) -> None:
        self._journal = Journal(self.run / "journal.jsonl")
        self._before = used_in(self._journal)
        self._attempts: dict[str, _Attempt] = {}
        self._noted = self.began
        settle_sign(self.run, self.budget)

    def take(self, slot: Slot, progress: Progress) -> None:
        """A slot has ended an epoch."""
        now, known = time.monotonic(), self._attempts.get(slot.pack.id)
        before = known.before if known else 0.0
        if known and (known.failed or progress.seconds < known.seconds):
            before += known.seconds
        last = progress.epochs if slot.until is None else min(slot.until, progress.epochs)
        over = progress.epoch >= last or all(m.status != "training" for m in progress.members)
        devices = slot.gpus or float(slot.cpus)
        self._attempts[slot.pack.id] = _Attempt(devices, progress.seconds, now, over, before)
        if words := (self._before + self.used(now)).beyond(self.budget):
            raise_sign(self.run, words)
        if now - self._noted >= NOTE_EVERY_S:
            self.note(now)

    def fail(self, slot: Slot) -> None:
        """An attempt at a slot has failed; it held its devices until now."""
        known = self._attempts.get(slot.pack.id)
        if known and not known.failed:
            known.seconds = known.lasted(time.monotonic()) - known.before
            known.ended = known.failed = True

    def used(self, now: float) -> Used:
        """What was used since this meter began."""
        devices = sum(one.devices * one.lasted(now) for one in self._attempts.values())
        return Used(now - self.began, devices)

    def note(self, now: float | None = None) -> None:
        """Write down what is used by now."""
        self._noted = time.monotonic() if now is None else now
        used = self.used(self._noted)
        self._journal.append(EVENT, meter=self.id, seconds=used.seconds, device_seconds=used.device_seconds)


@dataclass(frozen=True)
class Metered:
    """The executor, with the budgets of the runs whose slots it trains kept."""

    executor: Executor

    def resources(self) -> Resources:
        """As :meth:`ensemble_svc.plan.executor.Executor.resources` says."""
        return self.executor.resources()

    def workers(
        self, number: int, payload: Any, *, cpus: int, gpus: float
    ) -> AbstractContextManager[Call[Any]]:
        """As :meth:`ensemble_svc.plan.executor.Executor.workers` says."""
        return self.executor.workers(number, payload, cpus=cpus, gpus=gpus)

    def racing(self, races: Sequence[Race]) -> Self:
        """As :meth:`ensemble_svc.plan.executor.Executor.racing` says."""
        return replace(self, executor=self.executor.racing(races))

    def run(
        self,
        slots: Sequence[Slot],
        fit: Fit[Any],
        payload: Any,
        *,
        on_progress: OnProgress,
        on_failure: OnFailure,
    ) -> None:
        """As :meth:`ensemble_svc.plan.executor.Executor.run` says; payloads are by pack."""
        meters = _meters(payload)

        def progress(slot: Slot, told: Progress) -> None:
            if slot.pack.id in meters:
                meters[slot.pack.id].take(slot, told)
            on_progress(slot, told)

        def failure(slot: Slot, reason: str, again: bool) -> None:
            if slot.pack.id in meters:
                meters[slot.pack.id].fail(slot)
            on_failure(slot, reason, again)

        try:
            self.executor.run(slots, fit, payload, on_progress=progress, on_failure=failure)
        finally:
            for meter in {meter.id: meter for meter in meters.values()}.values():
                meter.note()


def _meters(payloads: Mapping[str, Payload]) -> dict[str, Meter]:
    """The meter of each pack whose search has a budget; packs of one run share it."""
    found, by_run = dict[str, Meter](), dict[str, Meter]()
    for pack, payload in payloads.items():
        budget = payload.search.budget if payload.search else None
        if budget is not None:
            if payload.run not in by_run:
                by_run[payload.run] = Meter(Path(payload.run), budget)
            found[pack] = by_run[payload.run]
    return found
