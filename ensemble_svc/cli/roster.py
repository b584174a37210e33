"""The members of a run as tables for the terminal; of very many the lost, the best and the worst.

As in ``tables``, no name is ever read as markup, and nothing here loads torch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from ensemble_svc.cli.tables import add, blank
from ensemble_svc.report.looks import headline, look
from ensemble_svc.report.picked import LOST, best_first, picked
from ensemble_svc.report.rows import MemberRow, member_table, status_words
from ensemble_svc.report.text import DASH, brief, clean, count, duration
from ensemble_svc.report.verdict import report_split
from ensemble_svc.store.lineage import changed_words

_STATES = {"done": "green", "stopped": "green", "lost": "bold red", "waiting": "yellow"}
VARIED_UP_TO = 3
"""Columns of differing hyper-parameters at most."""
REASONS_UP_TO = 5
STATUS_UP_TO = 60
"""Members that have a line of their own in what a run has reached."""


def members_table(manifest: Mapping[str, Any], limit: int = 20) -> Table:
    """The members one by one; of more than ``limit`` some lost ones, then the best and the worst."""
    members = manifest.get("members") or ()
    shown = _lines_of(members, limit, manifest)
    found = member_table(shown, _metric_columns(members), of=members, say=brief)
    places = _places_of(members)
    where = ["Where"] if len(places) > 1 else []
    together = len(found.rows) > 1 and len({row.seconds for row in found.rows}) == 1
    time = [] if together else ["Time"]
    heads = [*(head for head, _ in found.varied[:VARIED_UP_TO]), "Best epoch", *found.metrics, *time, *where]
    table = blank(["Member", "Status", *heads], words=2)
    table.columns[1].no_wrap = True
    table.title = Text("\nMembers", style="bold")
    for row in found.rows:
        values = [clean(cell, limit=16) for cell in row.varied[:VARIED_UP_TO]]
        plain = [*values, row.epochs, *row.metrics, *([] if together else [row.seconds])]
        plain += [clean(row.where, limit=24)] if where else []
        status = (row.status.removesuffix(" early"), _STATES[row.state])
        add(table, [(row.id, ""), status, *((cell, "") for cell in plain)])
    remarks = _remarks(members, found.rows, places)
    table.caption = Text(
        "\n".join([*remarks, f"each trained for {found.rows[0].seconds}"] if together else remarks)
    )
    return table


def _lines_of(
    members: Sequence[Mapping[str, Any]], limit: int, manifest: Mapping[str, Any]
) -> Sequence[Mapping[str, Any]]:
    """The members that have a line, in their order, or of too many the lost ones first and then the best."""
    if len(members) <= limit:
        return members
    chosen = {str(own).partition("#")[0] for own in (manifest.get("ensemble") or {}).get("members") or ()}
    some = picked(members, limit, chosen)
    ranked = [some[place] for place in best_first(some)]
    return sorted(ranked, key=lambda member: member.get("status") not in LOST)


def _places_of(members: Sequence[Mapping[str, Any]]) -> set[str]:
    """Where the members trained, as a row says it."""
    wheres = {json.dumps(m.get("where") or {}, sort_keys=True, default=str): m for m in members}
    return {row.where for row in member_table(list(wheres.values()), ()).rows} - {DASH}


def _remarks(members: Sequence[Mapping[str, Any]], rows: Sequence[MemberRow], places: set[str]) -> list[str]:
    lost = [member for member in members if member.get("status") in LOST][:REASONS_UP_TO]
    more = len(members) - len(rows)
    remarks = [f"the best and the worst; {more:,} more members stand in manifest.json"] if more else []
    remarks += [words] if (words := changed_words(members)) else []
    remarks += [f"all on {place}" for place in places if len(places) == 1]
    remarks += [f"{row.id} {row.status}: {row.reason}" for row in member_table(lost, ()).rows if row.reason]
    return remarks


def _metric_columns(members: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    measured: Mapping[str, Any] = next((member["metrics"] for member in members if member.get("metrics")), {})
    split = report_split(measured)
    if not split:
        return []
    names = headline(measured[split])
    first = {name.rpartition("/")[0]: name for name in reversed(names)}
    return [(split, name) for name in (names if "" in first else reversed(first.values()))]


def status_table(found: Mapping[str, Any]) -> Table:
    """What the members of a run have reached, as ``store.status.status_of`` tells it.

    Of very many some lost ones and the best come first, then the worst; the caption counts them all.
    """
    members = found["members"]
    columns = _metric_columns(members)
    table = blank(
        ["Member", "Status", "Epochs", *(look(name).label for _, name in columns), "Time", "Pack"], words=2
    )
    table.columns[-1].justify = "left"
    single = [found["single"]] if "single" in found else []
    shown = _lines_of(members, STATUS_UP_TO, found)
    rows = member_table([*shown, *single], columns, of=members).rows
    for member, row in zip((*shown, *single), rows, strict=True):
        word = row.status.removesuffix(" early")
        status = f"{word}: {row.reason}" if row.reason else word
        epochs = f"{member.get('epochs', 0)} of {member.get('of_epochs', found['epochs'])}"
        style = _STATES[row.state] if member["status"] != "training" else "cyan"
        cells = [(row.id, ""), (clean(status, limit=120), style), (epochs, "")]
        plain = (*row.metrics, duration(member.get("seconds")), clean(member.get("pack", "")))
        cells += [(cell, "") for cell in plain]
        add(table, cells)
    tally = Counter(status_words(member).removesuffix(" early") for member in members)
    state = f"{found['state']}, {tally['done']:,} of {count(len(members), 'member')} done"
    state += f", {tally['stopped']:,} stopped" if tally["stopped"] else ""
    table.title = Text(f"{clean(found['name'])}: {state}", style="bold")
    starts, retries = found.get("starts", 1), len(found.get("retries", ()))
    words = f"started {_times(starts)}" + (f", slots retried {_times(retries)}" if retries else "")
    if len(shown) < len(members):
        words += f"\n{', '.join(f'{number:,} {clean(status)}' for status, number in tally.most_common())}"
        words += f"; {len(members) - len(shown):,} more members than shown: --json tells all"
    table.caption = Text(words)
    return table


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")
