"""What is known of one member and of one slot's pack of a run that is looked at from outside."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ensemble_svc.plan.plan import MemberSpec, Slot
from ensemble_svc.spec.direction import toward_less
from ensemble_svc.store.lineage import in_force
from ensemble_svc.store.progress import Tick

Status = Literal["training", "retrying", "failed", "diverged", "excluded", "pending", "stopped", "done"]

SICK = frozenset({"diverged", "excluded"})
"""A member that is sealed and in no ensemble."""
PACE_OVER_S = 10.0
"""Over how long a pack's pace is taken: one epoch of a few milliseconds says little."""


@dataclass
class Member:
    """What is known of one member."""

    spec: MemberSpec
    pack: str
    status: Status = "pending"
    reason: str = ""
    epoch: int = 0
    best_epoch: int = 0
    """Whose weights it was sealed with."""
    stopped: bool = False
    """Whether it ended before its last epoch, by early stopping or by a search's scheduler."""
    ranked_out: bool = False
    """Whether it was stopped when trials of several packs were ranked; it may wait for its seal."""
    sealed: bool = False
    sick: str = ""
    """What is wrong with how it trained, in a few words."""
    curve: list[tuple[int, float | None, float | None]] = field(default_factory=list)
    """Epoch, training loss and validation metric."""
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By split, once it is sealed."""
    where: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    tops: list[tuple[int, float]] = field(default_factory=list)
    """The epochs that were better than all before them, with their validation metric; the last one is the best."""
    turns: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    """The values that a population's member took over, by the epoch after which."""

    @property
    def values(self) -> Mapping[str, Any]:
        """What it varies, as it trains now."""
        return in_force(self.spec.varied, self.turns[max(self.turns)] if self.turns else {})

    def values_at(self, epoch: int) -> Mapping[str, Any]:
        """What it varied in that epoch."""
        before = max((at for at in self.turns if at < epoch), default=None)
        return in_force(self.spec.varied, {} if before is None else self.turns[before])

    def last(self, metric: str) -> float | None:
        """Its newest value of the validation metric: the sealed one, or that of its last epoch."""
        held = self.metrics.get("validation") or self.metrics.get("oob") or {}
        return held.get(metric, self.curve[-1][2] if self.curve else None)

    def reached(self, metric: str, *, ended: bool) -> tuple[int, float] | None:
        """The best that it was worth so far, and after which epoch; None before it was worth anything.

        Args:
            ended: whether its run has: what it was sealed with counts alone.
        """
        held = (self.metrics.get("validation") or self.metrics.get("oob") or {}).get(metric)
        known = [] if held is None or not math.isfinite(held) else [(self.best_epoch, held)]
        if self.tops and not (ended and known):
            known.append(self.tops[-1])
        return min(known, key=lambda one: (toward_less(metric) * one[1], one[0]), default=None)

    def forget(self) -> None:
        """It trains anew."""
        self.status, self.reason, self.epoch, self.sick, self.seconds = "pending", "", 0, "", None
        self.stopped = self.ranked_out = self.sealed = False
        self.curve, self.metrics, self.tops, self.turns = [], {}, [], {}

    def see(self, epoch: int, loss: float | None, metric: float | None, name: str = "") -> None:
        """The end of an epoch; what came after it in an attempt that was lost no longer counts.

        Args:
            name: of the metric.
        """
        while self.curve and self.curve[-1][0] >= epoch:
            self.curve.pop()
        self.curve.append((epoch, loss, metric))
        while self.tops and self.tops[-1][0] >= epoch:
            self.tops.pop()
        sign = toward_less(name)
        if metric is not None and (not self.tops or sign * metric < sign * self.tops[-1][1]):
            self.tops.append((epoch, metric))
        self.epoch = max(epoch, self.epoch) if self.sealed else epoch


@dataclass
class PackRow:
    """What is known of one slot's pack."""

    slot: Slot
    started: float | None = None
    """When its last attempt began, seconds since 1970."""
    where: Mapping[str, Any] = field(default_factory=dict)
    """Node and process."""
    ticks: list[Tick] = field(default_factory=list)
    """The first and the last end of an epoch of this attempt."""
    held_s: float = 0.0
    """Wall seconds of attempts that are over."""
    open: bool = False
    """Whether an attempt is under way."""
    sealed_up_to: int = 0
    """Members from the first on that are known to be sealed, so that a large pack is not gone through at every seal."""
    pace_s: float | None = None
    """Seconds that an epoch takes with the members that train now, the newest counting most; None before two ended."""
    paced: int = 0
    """Epochs that it is known from."""

    def tick(self, tick: Tick) -> None:
        """An epoch has ended."""
        last = self.ticks[-1] if self.ticks else None
        if last is not None and tick.epoch > last.epoch:
            taken_s = tick.seconds - last.seconds
            newest = taken_s / (tick.epoch - last.epoch)
            as_many = self.pace_s is not None and len(tick.points) == len(last.points)
            self.paced = self.paced + 1 if as_many else 1
            weight = max(1 / self.paced, 1 - math.exp(-max(0.0, taken_s) / PACE_OVER_S))
            self.pace_s = newest if self.pace_s is None else self.pace_s + weight * (newest - self.pace_s)
        self.ticks = [*self.ticks[:1], tick]

    @property
    def held(self) -> float:
        """GPUs, or cores where it has none."""
        return self.slot.gpus or self.slot.cpus

    def since_start(self, now: float) -> float:
        """Seconds of all its attempts."""
        return self.held_s + (max(0.0, now - self.started) if self.open and self.started else 0.0)

    def close(self, now: float) -> None:
        """Its attempt is over."""
        if self.open and self.started is not None:
            self.held_s += max(0.0, now - self.started)
        self.open = False

    def all_sealed(self, is_sealed: Callable[[MemberSpec], bool]) -> bool:
        """Whether every member is."""
        members = self.slot.pack.members
        while self.sealed_up_to < len(members) and is_sealed(members[self.sealed_up_to]):
            self.sealed_up_to += 1
        return self.sealed_up_to == len(members)
