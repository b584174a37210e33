"""What a run's state means: the best so far, the rungs of a search, the time that is left, what it has cost.

Pure functions of ``reached.Reached``. A trial is the members from its number times ``seeds_per_trial`` on; without a
search each member stands for itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ensemble_svc.spec.direction import toward_less
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.schedulers import Asha
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.store.ahead import goes_beyond_its_slots, search_left_s
from ensemble_svc.store.reached import SICK, Member, PackRow, Reached

GROUPS = ("pending", "training", "stopped", "done", "sick", "failed")
"""In which members are counted; ``done`` trained to their end, ``sick`` are in no ensemble."""


@dataclass(frozen=True)
class Best:
    """The best trial, or member, so far."""

    number: int
    metric: str
    value: float
    values: Mapping[str, Any]
    """What it varied in that epoch."""
    epoch: int
    """After which it was reached."""


@dataclass(frozen=True)
class Rung:
    """An epoch at which a search stops trials."""

    epoch: int
    came: int
    """Trials that trained so far."""
    went_on: int
    """Those that train on after it; 0 until it is decided."""


def group_of(member: Member, *, going: bool = True) -> str:
    """Where a member is counted.

    Args:
        going: whether somebody drives the run; otherwise one that trained waits for that.
    """
    if member.status in SICK:
        return "sick"
    if member.status in ("pending", "failed"):
        return member.status
    if member.stopped:
        return "stopped"
    if member.status == "done":
        return "done"
    return "training" if going else "pending"


def counts(reached: Reached) -> dict[str, int]:
    """Members by group; those that a search has not asked for yet are pending."""
    going = reached.state == "running"
    members = reached.ordered()
    found = Counter(group_of(member, going=going) for member in members)
    to_come = 0 if reached.ended else max(0, reached.spec().ensemble.members - len(members))
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
    """The best that any trial was worth so far, after whichever epoch; None before there is any.

    A trial of several seeds is worth the mean of the best of each. Of a run that has ended each counts by what it was
    sealed with.
    """
    metric, size, ended = metric_of(reached), seeds(reached), bool(reached.ended)
    sign = toward_less(metric)
    trials: dict[int, list[Member]] = {}
    for member in reached.ordered():
        trials.setdefault(member.spec.index // size, []).append(member)
    found: list[Best] = []
    for number, some in trials.items():
        tops = [top for member in some if (top := member.reached(metric, ended=ended)) is not None]
        if len(tops) < len(some) or any(group_of(member) in ("sick", "failed") for member in some):
            continue
        epoch = max(epoch for epoch, _ in tops)
        values = some[0].values if ended else some[0].values_at(epoch)
        found.append(Best(number, metric, fmean(value for _, value in tops), values, epoch))
    return min(found, key=lambda one: (sign * one.value, one.number), default=None)


def rungs(reached: Reached) -> tuple[Rung, ...]:
    """The rungs of a search: those that its scheduler gives, and any other epoch at which trials were stopped."""
    search = reached.spec().search
    if search is None:
        return ()
    epochs, scheduler = reached.spec().training.epochs, search.scheduler
    at = {epoch for epoch in range(1, epochs) if _is_rung(search, epoch, epochs)}
    firsts = [m for m in reached.ordered() if m.spec.index % search.seeds_per_trial == 0]
    stopped = Counter(member.epoch for member in firsts if member.stopped)
    if scheduler.name != "none":
        at |= stopped.keys()
    came = {epoch: sum(member.epoch >= epoch for member in firsts) for epoch in at}
    return tuple(Rung(e, came[e], came[e] - stopped[e] if stopped[e] else 0) for e in sorted(at))


def _is_rung(search: SearchSpec, epoch: int, epochs: int) -> bool:
    """Whether a search has a rung at this epoch; one that may stop trials at any epoch has none."""
    if (ladder := Ladder.of(search, epochs)) is not None:
        return epoch in ladder.rungs
    return isinstance(search.scheduler, Asha) and search.scheduler.asks(epoch)


def left_s(reached: Reached, now: float) -> float | None:
    """Seconds until the slots are done; None where nothing is known yet.

    Those under way at their own pace so far, side by side; after them those that wait, as many at a time, each as
    long as the ended ones took on average, or as was forecast. Of a search whose trials stop or are yet to come, all
    of them.
    """
    if reached.state != "running":
        return None
    if goes_beyond_its_slots(reached.spec().search):
        return search_left_s(reached, now)
    rows = list(reached.packs.values())
    spent = [row.held_s for row in rows if reached.over(row)]
    running = [
        left for row in rows if (left := _left_at_pace(row, now)) is not None and not reached.over(row)
    ]
    waiting = list[float]()
    for row in rows:
        if reached.over(row) or _left_at_pace(row, now) is not None:
            continue
        if not spent and row.slot.forecast is None:
            return None
        waiting.append(fmean(spent) if spent or row.slot.forecast is None else row.slot.forecast.seconds)
    return max(running, default=0.0) + sum(waiting) / max(1, len(running)) if rows else None


def _left_at_pace(row: PackRow, now: float) -> float | None:
    """Seconds that a slot under way still takes; None before two of its epochs have ended."""
    if not row.open or len(row.ticks) < 2 or row.ticks[1].epoch <= row.ticks[0].epoch:
        return None
    first, last = row.ticks
    pace_s = (last.seconds - first.seconds) / (last.epoch - first.epoch)
    return max(0.0, (last.epochs - last.epoch) * pace_s - (now - last.time))


def device_hours(reached: Reached, now: float) -> float:
    """Hours of GPUs, or of cores where there are none, that attempts at slots have held."""
    until = now if reached.state == "running" else reached.changed
    return sum(row.since_start(until) * row.held for row in reached.packs.values()) / 3600


def epoch_of(reached: Reached) -> tuple[int, int]:
    """The furthest epoch of any member, and the last one there is."""
    return max((member.epoch for member in reached.ordered()), default=0), reached.spec().training.epochs
