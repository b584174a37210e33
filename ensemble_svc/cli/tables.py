"""Tables for the terminal: compact at 100 columns, and no name in them is ever read as markup.

Every cell is a ``Text`` of cleaned words, so neither Rich's tags nor control characters in a run's,
class's or host's name do anything. Nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from ensemble_svc.plan.measurement import Timing
from ensemble_svc.plan.plan import Forecast, Plan, Slot
from ensemble_svc.report.bytask import tasks_of, titled
from ensemble_svc.report.rows import Gain, MetricRow, metric_rows
from ensemble_svc.report.text import DASH, clean, count, duration, is_number, memory, value
from ensemble_svc.report.verdict import report_split, verdict

__all__ = ["choices_table", "metrics_table", "plan_table", "verdict"]

Cell = tuple[object, str]
"""Words and their style."""

_TONES = {"good": "green", "bad": "red", "": ""}
SLOTS_UP_TO = 40


def metrics_table(metrics: Mapping[str, Any]) -> Table:
    """Ensemble, members and gains on every split, the one that reports first."""
    first = report_split(metrics)
    many = any(len((s.get("members") or {}).get("each", ())) > 1 for s in metrics.values())
    best = many and any((s.get("gain") or {}).get("over_best_member") for s in metrics.values())
    heads = ["Metric", "Ensemble", *(["Mean member", "Gain over mean"] if many else [])]
    table = blank([*heads, *(["Gain over best"] if best else [])], words=1)
    for split, summary in sorted(metrics.items(), key=lambda item: item[0] != first):
        rows = summary.get("rows")
        place = clean(split, limit=30)
        title = place + (f", {rows:,} rows" if is_number(rows) else "")
        for task, own in tasks_of(summary).items():
            add(table, [(titled(clean(task, limit=20), place) if task else title, "bold cyan")])
            for row in metric_rows(own):
                add(table, _metric_cells(row, many=many, best=best))
            table.add_section()
    if many:
        table.caption = Text("a gain above 0 is better" + ("; best: as validation chose" if best else ""))
    table.title = Text("\nMetrics", style="bold")
    return table


def _metric_cells(row: MetricRow, *, many: bool, best: bool) -> list[Cell]:
    cells: list[Cell] = [(f"  {row.label} {row.unit}".rstrip() + f" {row.arrow}", ""), (row.ensemble, "bold")]
    if many:
        spread = f" ± {row.std}" if row.std else ""
        cells += [(f"{row.mean}{spread}", ""), _gain(row.over_mean)]
    return [*cells, _gain(row.over_best)] if best else cells


def _gain(gain: Gain | None) -> Cell:
    return (f"{gain.amount} {gain.bounds}".rstrip(), _TONES[gain.tone]) if gain else (DASH, "dim")


def plan_table(plan: Plan) -> Table:
    """Every slot of a plan: which members, on what, and why."""
    gpus = any(slot.gpus for slot in plan.slots)
    table = blank(["Slot", "Members", "Model", "GPU" if gpus else "CPU", "Time", "Why"], words=1)
    for position in (2, 5):
        table.columns[position].justify = "left"
    table.columns[5].no_wrap = False
    for slot in plan.slots[:SLOTS_UP_TO]:
        add(table, [(cell, "") for cell in _slot_cells(slot)])
    table.caption = Text(_plan_total(plan))
    return table


def _slot_cells(slot: Slot) -> list[object]:
    indices = [member.index for member in slot.pack.members]
    whole = indices == list(range(indices[0], indices[-1] + 1))
    runs = f"{indices[0]}–{indices[-1]}" if whole else f"{indices[0]}, … {indices[-1]}"
    members = f"{len(indices):,} ({runs})" if len(indices) > 1 else f"1 ({indices[0]})"
    members = "single model" if slot.pack.members[0].is_single else members
    held, expected = slot.gpus or slot.cpus, slot.forecast
    model = slot.pack.members[0].model.name
    return [
        slot.pack.id,
        members,
        model,
        f"{held:g}",
        duration(expected.seconds) if expected else DASH,
        clean(slot.reason),
    ]


def _plan_total(plan: Plan) -> str:
    if not plan.slots:
        return "every member is done; there is nothing to train"
    total = f"{trained_words(plan)} in {count(len(plan.slots), 'slot')}"
    more = len(plan.slots) - SLOTS_UP_TO
    return f"{total}; {more:,} slots more than shown" if more > 0 else total


def trained_words(plan: Plan) -> str:
    """``16 members``, or ``16 members and a single model``."""
    single = sum(member.is_single for member in plan.members)
    members = count(sum(1 for _ in plan.members) - single, "member")
    return f"{members} and a single model" if single else members


def forecast_words(expected: Forecast | None, where: str = "") -> str:
    """A plan's forecast in one line.

    Args:
        where: of the measurements, such as `` in runs/digits``.
    """
    if expected is None:
        return "forecast: unknown until it is measured"
    source = f"measured{where}" if expected.by == "measured" else "by formula"
    return f"forecast ({source}): {forecast_cells(expected.model_dump())}"


def forecast_cells(found: Mapping[str, Any]) -> str:
    """``at most 61 s, 0.03 device-hours, 520 MB``, of a forecast or of what was taken."""
    most = "at most " if found.get("at_most") else ""
    return f"{most}{duration(found['seconds'])}, {found['device_hours']:.3g} device-hours" + (
        f", {memory(found['peak_memory_bytes'])} at the peak" if found.get("peak_memory_bytes") else ""
    )


def timings_table(timings: Sequence[Timing]) -> Table:
    """What was timed of members of one structure."""
    heads = [
        "Members",
        "Threads",
        "Beside each other",
        "ms per step",
        "ms per member's step",
        "MB per member",
    ]
    table = blank(heads, words=0)
    table.title = Text("\nTimed steps", style="bold")
    for timing in sorted(timings, key=lambda t: (t.at_once, t.threads, t.members)):
        each_s = timing.step_s / timing.members / timing.at_once
        cells = [timing.members, timing.threads, timing.at_once, f"{timing.step_s * 1e3:.2f}"]
        cells += [f"{each_s * 1e3:.2f}", f"{timing.member_bytes / 1e6:.1f}"]
        add(table, [(cell, "") for cell in cells])
    return table


def choices_table(kind: str, entries: Sequence[Mapping[str, Any]]) -> Table:
    """The choices of one kind with their options, as ``spec.catalogue.choices`` describes them."""
    table = blank(["Choice", "Default", "Meaning"], words=1)
    table.title = Text(kind, style="bold")
    table.columns[1].justify = table.columns[2].justify = "left"
    table.columns[1].no_wrap = table.columns[2].no_wrap = False
    table.columns[1].max_width = 22
    for entry in entries:
        add(table, [(entry["name"], "bold cyan"), ("", ""), (_sentence(entry["doc"]), "")])
        for option in entry["options"]:
            default: Cell = (
                ("required", "yellow") if option["required"] else (_default(option["default"]), "")
            )
            meaning = f"{_sentence(option['doc'])} ({option['type']})" if option["doc"] else option["type"]
            add(table, [(f"  {option['name']}", ""), default, (meaning, "dim")])
        table.add_section()
    return table


def _sentence(doc: str) -> str:
    """The first paragraph on one line, without reStructuredText's double quotes."""
    return " ".join(doc.partition("\n\n")[0].replace("``", "`").split())


def _default(default: Any) -> str:
    if default is None:
        return "null"
    return str(default).lower() if isinstance(default, bool) else value(default)


def blank(heads: Sequence[str], *, words: int) -> Table:
    """An empty table whose first ``words`` columns hold words and the others numbers; what is wide goes on below, and
    no number is cut."""
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        title_justify="left",
        caption_justify="left",
        header_style="dim",
    )
    for position, head in enumerate(heads):
        table.add_column(
            Text(head),
            justify="left" if position < words else "right",
            no_wrap=position == 0,
            overflow="fold",
        )
    return table


def add(table: Table, cells: Sequence[Cell]) -> None:
    table.add_row(*(Text(clean(words), style=style) for words, style in cells))
