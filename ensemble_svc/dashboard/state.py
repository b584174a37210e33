"""What the page shows of a run, as plain JSON of bounded size however many members there are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ensemble_svc.spec.direction import HIGHER_IS_BETTER
from ensemble_svc.store.outlook import (
    Best,
    best,
    counts,
    device_hours,
    epoch_of,
    group_of,
    left_s,
    metric_of,
    rungs,
    seeds,
)
from ensemble_svc.store.reached import Member, PackRow, Reached

MEMBERS_UP_TO = 1000
"""Members of which the page has a row and a mark."""
CURVES_UP_TO = 60
POINTS_UP_TO = 120
"""Epochs of a curve."""
KEYS_UP_TO = 12
PACKS_UP_TO = 60
RUNGS_UP_TO = 20
WARNINGS_UP_TO = 20
WORDS_UP_TO = 200


def summary(run: Reached, now: float) -> dict[str, Any]:
    """A run in a few numbers."""
    (epoch, epochs), found, job = epoch_of(run), best(run), run.spec()
    return {
        "name": job.name,
        "state": run.state,
        "began": run.began,
        "ended": run.ended or None,
        "changed": run.changed,
        "now": now,
        "counts": counts(run),
        "epoch": epoch,
        "epochs": epochs,
        "metric": metric_of(run),
        "higher": metric_of(run) in HIGHER_IS_BETTER,
        "noun": "trial" if job.search else "member",
        "best": None if found is None else _best(found),
        "left_s": left_s(run, now),
        "device_hours": device_hours(run, now),
        "retries": run.retries,
    }


def detail(run: Reached, now: float) -> dict[str, Any]:
    """Everything that the page shows of one run."""
    chosen, going = set(run.chosen), run.state == "running"
    shown = sampled(run, MEMBERS_UP_TO)
    keys = list(dict.fromkeys(key for member in shown for key in member.values))[:KEYS_UP_TO]
    return {
        **summary(run, now),
        "rungs": [
            {"epoch": r.epoch, "came": r.came, "went_on": r.went_on} for r in rungs(run)[-RUNGS_UP_TO:]
        ],
        "keys": [{"name": _words(key), "log": _is_log(run, key)} for key in keys],
        "columns": ["id", "number", "group", "epoch", "loss", "value", "node", "chosen", "values", "why"],
        "members": [_row(run, m, keys, chosen, going=going) for m in shown],
        "hidden": len(run.ordered()) - len(shown),
        "curves": [_curve(member, going=going) for member in sampled(run, CURVES_UP_TO) if member.curve],
        "packs": _packs(run, now),
        "warnings": _warnings(run),
    }


def sampled(run: Reached, most: int) -> list[Member]:
    """At most so many members by index: of more, the better half by rank and others evenly from the rest."""
    rows = run.ordered()
    if len(rows) <= most:
        return rows
    metric = metric_of(run)
    sign = -1.0 if metric in HIGHER_IS_BETTER else 1.0

    def rank(member: Member) -> tuple[bool, float, int]:
        value = member.last(metric)
        known = value is not None and math.isfinite(value) and group_of(member) not in ("sick", "failed")
        return not known, sign * value if known and value is not None else 0.0, member.spec.index

    ranked = sorted(rows, key=rank)
    top, rest = ranked[: most // 2], ranked[most // 2 :]
    wanted = most - len(top)
    some = [rest[k * len(rest) // wanted] for k in range(wanted)]
    return sorted([*top, *some], key=lambda member: member.spec.index)


def _best(found: Best) -> dict[str, Any]:
    value = _number(found.value)
    return {"number": found.number, "value": value, "epoch": found.epoch, "values": _plain(found.values)}


def _row(run: Reached, member: Member, keys: Sequence[str], chosen: set[str], *, going: bool) -> list[Any]:
    loss = member.curve[-1][1] if member.curve else None
    varied = _plain(member.values)
    return [
        member.spec.id,
        member.spec.index // seeds(run),
        group_of(member, going=going),
        member.epoch,
        _number(loss),
        _number(member.last(metric_of(run))),
        _words(member.where.get("node") or ""),
        any(name.partition("#")[0] == member.spec.id for name in chosen),
        [varied.get(_words(key)) for key in keys],
        _words(member.reason),
    ]


def _curve(member: Member, *, going: bool) -> dict[str, Any]:
    """Its epochs, thinned evenly with the last one kept."""
    step = max(1, math.ceil(len(member.curve) / POINTS_UP_TO))
    points = member.curve[::-1][::step][::-1]
    return {
        "id": member.spec.id,
        "group": group_of(member, going=going),
        "epoch": [epoch for epoch, _, _ in points],
        "loss": [_number(loss) for _, loss, _ in points],
        "value": [_number(value) for _, _, value in points],
    }


def _packs(run: Reached, now: float) -> list[dict[str, Any]]:
    """Where slots run or ran, those under way first."""
    rows = sorted(run.packs.values(), key=lambda row: (not row.open, -(row.started or 0.0)))
    until = now if run.state == "running" else run.changed
    return [_pack(run, row, until) for row in rows[:PACKS_UP_TO]]


def _pack(run: Reached, row: PackRow, now: float) -> dict[str, Any]:
    members = run.of(row)
    device = next((m.where["device"] for m in members if m.where.get("device")), "")
    last = row.ticks[-1] if row.ticks else None
    return {
        "id": row.slot.pack.id,
        "node": _words(row.where.get("node") or ""),
        "pid": row.where.get("pid"),
        "state": "training"
        if row.open and run.state == "running"
        else "done"
        if run.over(row)
        else "pending",
        "members": len(members),
        "held": row.held,
        "unit": "GPU" if row.slot.gpus else "core",
        "device": _words(device),
        "epoch": last.epoch if last else max((m.epoch for m in members), default=0),
        "epochs": last.epochs if last else run.spec().training.epochs,
        "seconds": row.since_start(now),
    }


def _warnings(run: Reached) -> list[str]:
    """What happened to slots, and what is wrong with members, the newest first."""
    bad = Counter(
        member.reason or member.sick
        for member in run.ordered()
        if group_of(member) in ("sick", "failed") or member.sick
    )
    total = len(run.members)
    most = bad.most_common(WARNINGS_UP_TO + 1)
    told = [f"{number} of {total} members: {why}" for why, number in most if why]
    return [_words(words) for words in (*told, *reversed(run.notes))][:WARNINGS_UP_TO]


def _is_log(run: Reached, key: str) -> bool:
    """Whether a key's law is of its logarithm."""
    search = run.spec().search
    domain = search.space.get(key) if search else None
    return domain is not None and getattr(domain, "loguniform", None) is not None


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {_words(key): _leaf(value) for key, value in values.items()}


def _leaf(value: Any) -> float | int | str | bool | None:
    if isinstance(value, bool) or value is None:
        return value
    return _number(value) if isinstance(value, int | float) else _words(value)


def _number(value: float | int | None) -> float | int | None:
    """JSON has no word for what is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _words(text: object) -> str:
    text = str(list(text)) if isinstance(text, tuple) else str(text)
    return text if len(text) <= WORDS_UP_TO else text[: WORDS_UP_TO - 1] + "…"
