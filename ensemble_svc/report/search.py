"""A search as its figures need it: trials in words, keys by importance, who was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ensemble_svc.exhibits.trials import Trial, trials_of
from ensemble_svc.report.looks import Look, look
from ensemble_svc.report.rows import short
from ensemble_svc.report.text import clean, is_number, number, value
from ensemble_svc.report.view import RunView
from ensemble_svc.spec.spaces import laws_by_key
from ensemble_svc.store.members import parted

WIDE = 25.0
"""Ratio of the largest to the smallest value above which an axis is logarithmic."""


@dataclass(frozen=True)
class Searched:
    """What was searched, and what came of it."""

    space: Mapping[str, Mapping[str, Any]]
    face: Look
    """Of the metric that the trials were judged by."""
    trials: Sequence[Trial]
    chosen: frozenset[str]
    importance: Mapping[str, Any]
    """As ``exhibits.importance.importance``; empty where there is none."""

    @classmethod
    def of(cls, view: RunView) -> Searched | None:
        """None where nothing was searched."""
        search = view.job.get("search")
        if not search or not search.get("space"):
            return None
        space, metric = laws_by_key(search["space"]), search.get("metric") or "nll"
        found = (view.exhibits.get("search") or {}).get("importance") or {}
        trials = trials_of(list(space), metric, view.members)
        chosen = {parted(own)[0] for own in view.chosen}
        return cls(space, look(metric), trials, frozenset(chosen), found)

    @property
    def shares(self) -> Mapping[str, float]:
        """How much each key matters, the largest first; empty where that is not known."""
        shares: Mapping[str, float] = self.importance.get("shares") or {}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    @cached_property
    def keys(self) -> list[str]:
        """The searched keys, the most important first, those of which nothing is known last."""
        known = [key for key in self.shares if key in self.space]
        return [*known, *(key for key in self.space if key not in known)]

    @cached_property
    def heads(self) -> Mapping[str, str]:
        """A short name for each key."""
        return dict(zip(self.space, (clean(head, limit=40) for head in short(list(self.space))), strict=True))

    @cached_property
    def ranked(self) -> list[Trial]:
        """Trials with a value, the best first."""
        known = [trial for trial in self.trials if trial.value is not None]
        sign = -1 if self.face.higher_is_better else 1
        return sorted(known, key=lambda trial: (sign * (trial.value or 0.0), trial.number))

    def is_chosen(self, trial: Trial) -> bool:
        """Whether a member of it is in the ensemble."""
        return not self.chosen.isdisjoint(trial.members)

    def words(self, trial: Trial) -> str:
        """A trial on one line."""
        settings = ", ".join(
            f"{self.heads[key]} {number(held) if is_number(held) else value(held)}"
            for key, held in trial.values.items()
        )
        ended = f", {trial.ended} after epoch {trial.epochs}" if trial.ended != "done" else ""
        return f"trial {trial.number}: {self.face.label} {self.face.show(trial.value)}{ended}; {settings}"
