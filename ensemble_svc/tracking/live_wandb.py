"""A run that goes on, in Weights & Biases: files that grow while members train, and are written whole at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ensemble_svc.spec.trackers import Wandb
from ensemble_svc.store.outlook import metric_of
from ensemble_svc.store.reached import Member, Reached
from ensemble_svc.tracking.naming import mark_of, settings_in_words
from ensemble_svc.tracking.to_wandb import Place, is_written

LIVE_UP_TO = 64
"""Runs that are open beside each other; the other members' are written when the run ends."""


class LiveWandb:
    """Tells of one run what is new of it."""

    def __init__(self, reached: Reached, tracker: Wandb, run: Path) -> None:
        mark = mark_of(run / "journal.jsonl")
        project = tracker.project or reached.spec().name
        self._place = Place(mark, run.resolve().name, project, run)
        self._reached = reached
        self._open: dict[str, Any] = {}
        self._epochs: dict[str, int] = {}

    def tell(self) -> None:
        """Everything that is new since the last time."""
        for member in self._reached.ordered():
            name, told = member.spec.id, self._epochs.get(member.spec.id, 0)
            if member.curve and member.curve[-1][0] > told and self._may_open(name):
                self._go_on(member, told)
            if member.sealed and name in self._open:
                self._close(name, member.status)

    def stop(self) -> None:
        """Nobody drives the run any more."""
        for name in list(self._open):
            self._close(name, "stopped")

    def _may_open(self, name: str) -> bool:
        if name in self._open:
            return True
        is_new = name not in self._epochs and len(self._open) < LIVE_UP_TO
        return is_new and not is_written(self._place.run, name)

    def _go_on(self, member: Member, told: int) -> None:
        """Its new epochs; a run that is opened gets all of them."""
        name, metric = member.spec.id, f"val_{metric_of(self._reached)}"
        if name not in self._open:
            values = settings_in_words(member.spec.index, member.spec.varied)
            self._open[name] = self._place.opened(name, values)
        for epoch, loss, value in member.curve:
            if epoch > told:
                row = {key: own for key, own in (("train_loss", loss), (metric, value)) if own is not None}
                self._open[name].log(row, step=epoch, commit=True)  # or it would wait for the next epoch
                self._epochs[name] = epoch
        self._open[name].summary["status"] = member.status

    def _close(self, name: str, status: str) -> None:
        one = self._open.pop(name)
        one.summary["status"] = status
        one.finish()
