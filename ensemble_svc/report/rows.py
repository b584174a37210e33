"""Table rows as words: what the page's tables show, cell by cell.

Pure and light: the terminal uses it too, so nothing here loads torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import pstdev
from typing import Any

from ensemble_svc.report.looks import look, ordered
from ensemble_svc.report.text import DASH, clean, duration, is_number, value
from ensemble_svc.report.verdict import gain_parts
from ensemble_svc.store.lineage import settings_of

SKEWED = 3
"""How much more than the better half of the members all scatter where a normal distribution would not: 1.7 there."""
VARIED_UP_TO = 8
"""Columns of differing hyper-parameters at most."""


@dataclass(frozen=True)
class Gain:
    """A gain with its interval; above 0 is better."""

    amount: str
    bounds: str
    tone: str
    """good, bad, or empty when 0 lies inside the interval."""


@dataclass(frozen=True)
class MetricRow:
    """One metric on one split."""

    label: str
    unit: str
    arrow: str
    """Up when higher is better."""
    doc: str
    ensemble: str
    mean: str
    std: str
    best: str
    worst: str
    over_mean: Gain | None
    over_best: Gain | None


def metric_rows(summary: Mapping[str, Any]) -> list[MetricRow]:
    """The metrics of one split, in the order of the page."""
    return [_metric_row(name, summary) for name in ordered(summary["ensemble"])]


def _metric_row(name: str, summary: Mapping[str, Any]) -> MetricRow:
    face, members, gain = look(name), summary.get("members", {}), summary.get("gain", {})
    std = members.get("std", {}).get(name)
    over_mean, over_best = (
        (gain.get(over) or {}).get(name) for over in ("over_mean_member", "over_best_member")
    )
    places = face.places(std, _half_width(over_mean))
    mean, best, worst = (
        face.bare(members.get(part, {}).get(name), places) for part in ("mean", "best", "worst")
    )
    return MetricRow(
        label=face.label,
        unit=face.unit,
        arrow="↑" if face.higher_is_better else "↓",
        doc=face.doc,
        ensemble=face.bare(summary["ensemble"][name], places),
        mean=mean,
        std=face.bare(std, places) if is_number(std) else "",
        best=best,
        worst=worst,
        over_mean=_gain(name, over_mean),
        over_best=_gain(name, over_best),
    )


def _half_width(gain: Mapping[str, Any] | None) -> float | None:
    if not gain or not (is_number(gain.get("low")) and is_number(gain.get("high"))):
        return None
    return float(gain["high"] - gain["low"]) / 2


def _gain(name: str, gain: Mapping[str, Any] | None) -> Gain | None:
    if not gain or not is_number(gain.get("estimate")):
        return None
    amount, bounds = gain_parts(name, gain, signed=True)
    low, high = gain.get("low"), gain.get("high")
    tone = "good" if is_number(low) and low > 0 else "bad" if is_number(high) and high < 0 else ""
    return Gain(amount, bounds, tone)


@dataclass(frozen=True)
class MemberRow:
    """One member, finished or not."""

    id: str
    index: str
    varied: tuple[str, ...]
    status: str
    state: str
    """done, stopped, lost or waiting: what the page colours by."""
    reason: str
    epochs: str
    metrics: tuple[str, ...]
    seconds: str
    where: str
    took_over: str = ""
    """Whose state it went on from after which epoch, the last time; empty where it never did."""


@dataclass(frozen=True)
class MemberTable:
    """The members with the columns that this run needs."""

    varied: tuple[tuple[str, str], ...]
    """(head, dotted path) of each column of differing hyper-parameters."""
    metrics: tuple[str, ...]
    rows: tuple[MemberRow, ...]
    took_over: bool = False
    """Whether any member of the run went on from another's state."""


def member_table(
    members: Sequence[Mapping[str, Any]],
    metrics: Sequence[tuple[str, str]],
    *,
    of: Sequence[Mapping[str, Any]] | None = None,
    say: Callable[[Any], str] = value,
) -> MemberTable:
    """Members in the order given.

    Args:
        metrics: (split, metric) of each metric column.
        say: words of a setting.
        of: all members of the run, where these are some: they decide the columns and their digits.
    """
    every = members if of is None else of
    varied = differing(every)[:VARIED_UP_TO]
    places = [_places(every, split, name) for split, name in metrics]
    heads = tuple(f"{clean(split, limit=20)} {look(name).label}" for split, name in metrics)
    rows = tuple(_member_row(member, varied, metrics, places, say) for member in members)
    named = tuple(zip(short(varied), map(clean, varied), strict=True))
    return MemberTable(named, heads, rows, any(member.get("lineage") for member in every))


def differing(members: Sequence[Mapping[str, Any]]) -> list[str]:
    """Hyper-parameters in which at least two members differ at their end, by dotted path."""
    every = [settings_of(member) for member in members]
    keys = dict.fromkeys(key for one in every for key in one)
    return [
        key
        for key in keys
        if len({json.dumps(one.get(key), sort_keys=True, default=str) for one in every}) > 1
    ]


def short(paths: Sequence[str]) -> list[str]:
    """The last word of each dotted path, or the whole path where two would look the same."""
    ends = [path.rpartition(".")[2] for path in paths]
    return [
        clean(end if ends.count(end) == 1 else path, limit=40) for path, end in zip(paths, ends, strict=True)
    ]


def _metric(member: Mapping[str, Any], split: str, name: str) -> Any:
    return ((member.get("metrics") or {}).get(split) or {}).get(name)


def _places(members: Sequence[Mapping[str, Any]], split: str, name: str) -> int:
    """Decimals that tell the members apart; of a search, where bad trials scatter far, the good ones."""
    known = sorted(v for member in members if is_number(v := _metric(member, split, name)))
    if len(known) < 2:
        return look(name).places()
    half = -(-len(known) // 2)
    better = known[-half:] if look(name).higher_is_better else known[:half]
    return look(name).places(pstdev(known), SKEWED * pstdev(better))


def _member_row(
    member: Mapping[str, Any],
    varied: Sequence[str],
    metrics: Sequence[tuple[str, str]],
    places: Sequence[int],
    say: Callable[[Any], str],
) -> MemberRow:
    own = settings_of(member)
    where = member.get("where") or {}
    shown = (
        look(name).bare(_metric(member, split, name), p)
        for (split, name), p in zip(metrics, places, strict=True)
    )
    return MemberRow(
        id=clean(member.get("id", "")),
        index=value(member.get("index")),
        varied=tuple(say(own.get(key)) for key in varied),
        status=status_words(member),
        state=_state(member),
        reason=clean(member.get("reason") or "", limit=300),
        epochs=epochs_words(member),
        metrics=tuple(shown),
        seconds=duration(member.get("seconds")),
        where=" · ".join(clean(where[key], limit=40) for key in ("node", "device") if where.get(key)) or DASH,
        took_over=_took_over(member.get("lineage") or ()),
    )


def _took_over(lineage: Sequence[Mapping[str, Any]]) -> str:
    """``0003-0123456789ab after epoch 40, the last of 3``."""
    if not lineage:
        return ""
    last = lineage[-1]
    more = f", the last of {len(lineage)}" if len(lineage) > 1 else ""
    return f"{clean(last['from'], limit=40)} after epoch {last['epoch']}{more}"


def status_words(member: Mapping[str, Any]) -> str:
    """The member's status; a finished one that stopped early says so."""
    status = clean(member.get("status", ""), limit=20)
    return "stopped early" if status == "done" and member.get("stopped") else status


def _state(member: Mapping[str, Any]) -> str:
    if member.get("status") in {"failed", "diverged", "excluded"}:
        return "lost"
    if member.get("status") != "done":
        return "waiting"
    return "stopped" if member.get("stopped") else "done"


def epochs_words(member: Mapping[str, Any]) -> str:
    """``18 of 30``: best epoch of those trained."""
    best, epochs = member.get("best_epoch"), member.get("epochs")
    if not is_number(epochs):
        return DASH
    return f"{best:g} of {epochs:g}" if is_number(best) else f"{epochs:g}"
