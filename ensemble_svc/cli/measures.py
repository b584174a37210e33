"""Tables of what ``evaluate`` measures beside the metrics: rows from elsewhere, worsened images, slices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from ensemble_svc.report.elsewhere import elsewhere
from ensemble_svc.report.looks import headline, look
from ensemble_svc.report.text import clean

Split = Mapping[str, Any]
SHOWN = 30
"""Slices of a column at most."""


def foreign_table(split: Split) -> Iterator[Table]:
    """How well each score tells the usual rows from those of each source."""
    for found in elsewhere(split):
        title = f"{found.source}: {found.rows} rows from elsewhere, {found.usual_rows} usual"
        table = _table(title, ["Score", "AUROC", "AUPR", "FPR at 95 %", "AUROC of a member"])
        for row in found.scores:
            _add(table, *row)
        table.caption = Text(
            "50 % is chance for AUROC; a member: the mean over the members by their own score"
        )
        yield table


def shift_table(split: Split) -> Iterator[Table]:
    """Each corruption at each severity, by the headline metric: the ensemble and, in brackets, the mean member."""
    rows = split.get("shift") or []
    for task in dict.fromkeys(task for row in rows for task in row.get("tasks", {"": row})):
        own = [(row["corruption"], row["severity"], row.get("tasks", {"": row})[task]) for row in rows]
        name = headline(own[0][2]["ensemble"])[0]
        severities = sorted({severity for _, severity, _ in own})
        title = f"{clean(task, limit=20)} {look(name).label} on worsened images".strip()
        table = _table(title, ["Severity", *map(str, severities)])
        for corruption in dict.fromkeys(corruption for corruption, _, _ in own):
            found = [one for kind, _, one in own if kind == corruption]
            _add(table, corruption, *(_pair(name, one) for one in found))
        table.caption = Text("the ensemble, and its mean member in brackets")
        yield table


def slices_tables(split: Split) -> Iterator[Table]:
    """The values of each column that was asked for."""
    for column, rows in (split.get("slices") or {}).items():
        for task in dict.fromkeys(task for row in rows for task in row.get("tasks", {"": row})):
            own = [(row["value"], row.get("tasks", {"": row})[task]) for row in rows]
            names = headline(own[0][1]["ensemble"])
            title = f"By {clean(column, limit=40)}" + (f", {clean(task, limit=20)}" if task else "")
            table = _table(title, ["Value", "Rows", *(look(name).label for name in names)])
            for value, one in sorted(own, key=lambda pair: -pair[1]["rows"])[:SHOWN]:
                _add(
                    table, clean(value, limit=40) or "(empty)", f"{one['rows']:,}",
                    *(_pair(name, one) for name in names),
                )  # fmt: skip
            more = f"; {len(own) - SHOWN} more values in --json" if len(own) > SHOWN else ""
            table.caption = Text(f"the ensemble, and its mean member in brackets{more}")
            yield table


def remarks(split: Split) -> Iterator[str]:
    """What must be known of a split's numbers beside them."""
    own = split.get("own_rows") or {}
    told = [
        f"{own[key]:,} of these rows equal rows that {words}"
        for key, words in (("trained", "members were trained on"), ("chosen", "the ensemble was decided on"))
        if own.get(key)
    ]
    if told:
        yield f"warning: {', and '.join(told)}; what is measured on them is no test."
    if own.get("unknown"):
        yield f"whether members were trained on some of these rows is not known: {clean(own['unknown'], limit=200)}"
    for task, one in split.get("tasks", {"": split}).items():
        if sampled := one.get("sampled"):
            what = ", ".join(sampled["what"]).replace("_", " ")
            yield f"{clean(task, limit=20)} {what}: from a sample of {sampled['rows']:,} rows".strip()
        if left_out := one.get("left_out"):
            yield f"{clean(task, limit=20)} left out, the rows are too many to be ranked: {', '.join(left_out)}".strip()
    for text, found in (split.get("ood") or {}).items():
        if left_out := found.get("left_out"):
            what = ", ".join(left_out).replace("_", " ")
            yield f"{clean(text, limit=60)}, left out, the rows are too many: {what}"


def _pair(name: str, one: Mapping[str, Any]) -> str:
    face = look(name)
    places = face.places()
    shown = [face.bare(one[who].get(name), places) for who in ("ensemble", "mean_member")]
    return f"{shown[0]} ({shown[1]})"


def _table(title: str, heads: list[str]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), title_justify="left",
        caption_justify="left", header_style="dim", title=Text(f"\n{title}", style="bold"),
    )  # fmt: skip
    for position, head in enumerate(heads):
        table.add_column(Text(head), justify="right" if position else "left", no_wrap=True)
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(Text(cell) for cell in cells))
