"""A run that goes on, in MLflow: members appear when they begin to train, and their epochs as they end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble_svc.spec.trackers import Mlflow
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.outlook import metric_of
from ensemble_svc.store.reached import Member, Reached
from ensemble_svc.tracking.naming import mark_of, settings_in_words
from ensemble_svc.tracking.to_mlflow import (
    FAILED,
    METRICS_AT_ONCE,
    PARAMS_AT_ONCE,
    SEAL,
    STATUS,
    Store,
    described,
    ending,
    key,
    ms,
    parts,
)

LOSS = "train_loss"


@dataclass
class _Told:
    """What the store has of a member."""

    number: str
    epoch: int
    status: str
    running: bool
    whole: bool
    """Nothing is left to tell of it."""


class LiveMlflow:
    """Tells one run's store what is new of it.

    Raises:
        MlflowException: the store cannot be reached; likewise its methods.
    """

    def __init__(self, reached: Reached, tracker: Mlflow, run: Path) -> None:
        job, self._reached = reached.spec(), reached
        self._store = Store.of(tracker, run, job.name)
        journal = Journal(run / "journal.jsonl")
        began = journal.of_kind("begin")[0]["time"]
        own = self._store.opened(mark_of(journal.path), run.resolve().name, job, began)
        self._parent: str = own.info.run_id
        if own.info.status != "RUNNING" or own.data.tags.get(STATUS) != "running":
            self._say(self._parent, "RUNNING", "running")
        known = self._store.members(self._parent)
        self._told = {digest: self._as_told(one) for digest, one in known.items()}

    def tell(self) -> None:
        """Everything that is new since the last time."""
        for member in self._reached.ordered():
            told = self._told.get(member.spec.digest)
            if told is None and (member.curve or member.status != "pending"):
                told = self._told[member.spec.digest] = self._begin(member)
            if told is not None and not told.whole:
                self._go_on(member, told)

    def stop(self) -> None:
        """Nobody drives the run any more."""
        for told in self._told.values():
            if told.running and not told.whole:
                self._say(told.number, "KILLED", "stopped")
        self._say(self._parent, "KILLED", "stopped")

    def _as_told(self, known: Any) -> _Told:
        tags = known.data.tags
        whole = tags.get(SEAL) not in (None, FAILED)
        steps = {} if whole else self._store.told_steps(known, LOSS)
        running = known.info.status == "RUNNING"
        return _Told(known.info.run_id, max(steps, default=0), tags.get(STATUS, ""), running, whole)

    def _begin(self, member: Member) -> _Told:
        spec = member.spec
        number = self._store.created(self._parent, spec.id, spec.digest, time.time(), status=member.status)
        values = settings_in_words(spec.index, spec.varied)
        self._store.client.log_batch(number, params=described(values, {})[:PARAMS_AT_ONCE])
        return _Told(number, 0, member.status, running=True, whole=False)

    def _go_on(self, member: Member, told: _Told) -> None:
        """Its new epochs, and how it stands."""
        from mlflow.entities import Metric, RunTag

        new = [point for point in member.curve if point[0] > told.epoch]
        if new or member.status != told.status:
            if not told.running and not member.sealed:
                self._store.client.update_run(told.number, status="RUNNING")
                told.running = True
            now, names = ms(time.time()), (LOSS, key(f"val_{metric_of(self._reached)}"))
            metrics = [
                Metric(name, value, now, epoch)
                for epoch, *values in new
                for name, value in zip(names, values, strict=True)
                if value is not None
            ]
            tags = [RunTag(STATUS, member.status)]
            for some in list(parts(metrics, METRICS_AT_ONCE)) or [[]]:
                self._store.client.log_batch(told.number, metrics=some, tags=tags)
            told.epoch, told.status = max([told.epoch, *(point[0] for point in new)]), member.status
        if told.running and (member.sealed or member.status == "failed"):
            self._store.client.set_terminated(told.number, ending(member.status))
            told.running = False

    def _say(self, number: str, state: str, status: str) -> None:
        self._store.client.set_tag(number, STATUS, status)
        if state == "RUNNING":
            self._store.client.update_run(number, status=state)
        else:
            self._store.client.set_terminated(number, state)
