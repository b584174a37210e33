"""What a run's state means: the best so far, the rungs of a search, the time that is left, what it has cost.

Pure functions of ``reached.Reached``. A trial is the members from its number times ``seeds_per_trial`` on; without a
search each member stands for itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.search import HIGHER_IS_BETTER
from ensemble_svc.store.reached import SICK, Member, Reached

GROUPS = ("pending", "running", "stopped", "done", "sick", "failed")
"""In which members are counted; ``done`` trained to their end, ``sick`` are in no ensemble."""


@dataclass(frozen=True)
class Best:
    """The best trial, or member, so far."""

    number: int
    metric: str
    value: float
    values: Mapping[str, Any]
    """What it varies."""
    epoch: int
    sealed: bool


@dataclass(frozen=True)
class Rung:
    """An epoch at which a search stops trials."""

    epoch: int
    came: int
    """Trials that trained so far."""
    went_on: int
    """Those that train on after it; 0 until it is decided."""


def group_of(member: Member) -> str:
    """Where a member is counted."""
    if member.status in SICK:
        return "sick"
    if member.status in ("pending", "failed"):
        return member.status
    if member.stopped:
        return "stopped"
    return "done" if member.status == "done" else "running"


def counts(reached: Reached) -> dict[str, int]:
    """Members by group; those that a search has not asked for yet are pending."""
    found = Counter(map(group_of, reached.members.values()))
    to_come = max(0, reached.spec().ensemble.members - len(reached.members))
    return {name: found[name] + (to_come if name == "pending" else 0) for name in GROUPS}


def metric_of(reached: Reached) -> str:
    """What members are judged by: the search's metric, what stops them early, or nll."""
    job = reached.spec()
    if job.search is not None:
        return job.search.metric
    rule = job.training.early_stopping
    return rule.metric if rule is not None else "nll"


def seeds(reached: Reached) -> int:
    """Members of a trial."""
    search = reached.spec().search
    return search.seeds_per_trial if search else 1


def best(reached: Reached) -> Best | None:
    """The best trial so far by its last value; None before there is any."""
    metric, size = metric_of(reached), seeds(reached)
    sign = -1.0 if metric in HIGHER_IS_BETTER else 1.0
    trials: dict[int, list[Member]] = {}
    for member in reached.ordered():
        trials.setdefault(member.spec.index // size, []).append(member)
    found: list[Best] = []
    for number, some in trials.items():
        values = [member.last(metric) for member in some]
        known = [value for value in values if value is not None and math.isfinite(value)]
        if len(known) < len(some) or any(group_of(member) in ("sick", "failed") for member in some):
            continue
        epoch, sealed = min(member.epoch for member in some), all(member.sealed for member in some)
        found.append(Best(number, metric, fmean(known), some[0].spec.varied, epoch, sealed))
    return min(found, key=lambda one: (sign * one.value, one.number), default=None)


def rungs(reached: Reached) -> tuple[Rung, ...]:
    """The rungs of a search: those that its scheduler gives, and any other epoch at which trials were stopped."""
    search = reached.spec().search
    if search is None:
        return ()
    scheduler = search.scheduler
    ladder = Ladder.of(search, reached.spec().training.epochs)
    at = set(ladder.rungs) if ladder else set[int]()
    firsts = [m for m in reached.ordered() if m.spec.index % search.seeds_per_trial == 0]
    stopped = Counter(member.epoch for member in firsts if member.stopped)
    if scheduler.name != "none":
        at |= stopped.keys()
    came = {epoch: sum(member.epoch >= epoch for member in firsts) for epoch in at}
    return tuple(Rung(e, came[e], came[e] - stopped[e] if stopped[e] else 0) for e in sorted(at))


def left_s(reached: Reached, now: float) -> float | None:
    """Seconds until the slots are done, at the pace so far; None where nothing is known yet."""
    if reached.state != "running":
        return None
    running, waiting, spent = list[float](), 0.0, list[float]()
    for row in reached.packs.values():
        open_ = [m for m in row.slot.pack.members if not reached.members[m.index].sealed]
        if row.open and len(row.ticks) == 2 and row.ticks[1].epoch > row.ticks[0].epoch:
            first, last = row.ticks
            pace = (last.seconds - first.seconds) / (last.epoch - first.epoch)
            running.append(max(0.0, (last.epochs - last.epoch) * pace - (now - last.time)))
        elif open_ and row.slot.forecast is not None:
            waiting += row.slot.forecast.seconds
        elif open_:
            return None
        else:
            spent.append(row.held_s)
    at_once = max(1, len(running))
    return max(running, default=0.0) + waiting / at_once if running or waiting or spent else None


def device_hours(reached: Reached, now: float) -> float:
    """Hours of GPUs, or of cores where there are none, that attempts at slots have held."""
    until = now if reached.state == "running" else reached.changed
    return sum(row.since_start(until) * row.held for row in reached.packs.values()) / 3600


def epoch_of(reached: Reached) -> tuple[int, int]:
    """The furthest epoch of any member, and the last one there is."""
    return max((m.epoch for m in reached.members.values()), default=0), reached.spec().training.epochs
