"""``status --watch``: runs looked at from outside, live on a terminal and as lines anywhere else."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ensemble_svc.errors import CorruptArtifact, StoreError
from ensemble_svc.report.looks import Look, look
from ensemble_svc.report.text import DASH, brief, clean, duration, short_keys
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
from ensemble_svc.store.reached import Member, Reached, now, runs_in

EVERY_S = 1.0
LINE_EVERY_S = 5.0
"""Between two lines where there is no terminal."""
WAIT_S = 60.0
"""How long a folder without a run is waited for, as one that was submitted a moment ago."""
MOST_ROWS = 20
VALUES_UP_TO = 6
RUNGS_UP_TO = 5
STYLES = {
    "training": "cyan", "retrying": "yellow", "failed": "red", "sick": "red", "pending": "dim", "stopped": "",
    "done": "green",
}  # fmt: skip
ORDER = ("training", "failed", "sick", "done", "stopped", "pending")


def watch(path: Path, *, as_json: bool, wait_s: float = WAIT_S, every_s: float | None = None) -> None:
    """Show the runs of a folder until all of them have ended.

    Args:
        every_s: between two looks; a second on a terminal, 5 where lines are printed.

    Raises:
        StoreError: no run begins there within ``wait_s``, or none can be read.
    """
    console = Console(width=None if Console().is_terminal else 100)
    lines = as_json or not console.is_terminal
    pause_s = every_s if every_s is not None else LINE_EVERY_S if lines else EVERY_S
    runs, told = _found(path, wait_s, pause_s), list[str]()
    if as_json:
        _until_ended(runs, pause_s, lambda: _print_lines(runs))
    elif lines:
        _until_ended(runs, pause_s, lambda: _print_new(runs, told, console))
        console.print(picture(runs))
    else:
        with Live(picture(runs), console=console, refresh_per_second=4) as live:
            _until_ended(runs, pause_s, lambda: live.update(picture(runs)))


def _found(path: Path, wait_s: float, every_s: float) -> list[Reached]:
    until = time.monotonic() + wait_s
    while True:
        runs, faults = _read_on([Reached(run) for run in runs_in(path)])
        if any(run.begun for run in runs):
            _tell(faults)
            return [run for run in runs if run.begun]
        if time.monotonic() >= until:
            raise StoreError(f"{path} holds no run, and none began there within {wait_s:.0f} s")
        time.sleep(min(every_s, max(0.0, until - time.monotonic())))


def _read_on(runs: Sequence[Reached]) -> tuple[list[Reached], list[CorruptArtifact]]:
    """The runs as of now, and what keeps others from being read.

    Raises:
        CorruptArtifact: none of them can be read.
    """
    sound, faults = list[Reached](), list[CorruptArtifact]()
    for run in runs:
        try:
            run.update()
            sound.append(run)
        except CorruptArtifact as fault:
            faults.append(fault)
    if faults and not sound:
        raise faults[0]
    return sound, faults


def _tell(faults: Sequence[CorruptArtifact]) -> None:
    for fault in faults:
        typer.echo(f"warning: passed over: {clean(str(fault), limit=400)}", err=True)


def _until_ended(runs: list[Reached], every_s: float, show: Callable[[], None]) -> None:
    """Look again and again; runs that cannot be read on are taken out."""
    while True:
        going = [run for run in runs if run.state == "running"]
        runs[:], faults = _read_on(runs)  # after their states, so that what a run ended with is shown
        _tell(faults)
        show()
        if not going:
            return
        time.sleep(every_s)


def summary(run: Reached) -> dict[str, Any]:
    """A run in a few numbers, as one line of ``--json`` has it."""
    at, (epoch, epochs), found = now(), epoch_of(run), best(run)
    return {
        "time": round(at, 1),
        "run": str(run.path),
        "name": run.spec().name,
        "state": run.state,
        "members": counts(run),
        "epoch": epoch,
        "epochs": epochs,
        "best": None if found is None else _best_fields(run, found),
        "rungs": [{"epoch": r.epoch, "came": r.came, "went_on": r.went_on} for r in rungs(run)],
        "left_s": None if (left := left_s(run, at)) is None else round(left, 1),
        "device_hours": round(device_hours(run, at), 5),
        "retries": run.retries,
    }


def _best_fields(run: Reached, found: Best) -> dict[str, Any]:
    number = {"trial" if run.spec().search else "member": found.number}
    values = json.loads(json.dumps(dict(found.values), default=str))
    return {**number, "metric": found.metric, "value": found.value, "epoch": found.epoch, "values": values}


def _print_lines(runs: Sequence[Reached]) -> None:
    for run in runs:
        typer.echo(json.dumps(summary(run)))


def _print_new(runs: Sequence[Reached], told: list[str], console: Console) -> None:
    """The lines that are not those of the last time, which ``told`` holds."""
    lines = [f"{clean(run.spec().name)}: {'; '.join(facts(run))}" for run in runs]
    for line in lines:
        if line not in told:
            console.print(Text(line), soft_wrap=True)
    told[:] = lines


def facts(run: Reached) -> list[str]:
    """What is known of a run, in the order in which one asks."""
    at, (epoch, epochs), tally = now(), epoch_of(run), counts(run)
    words = [", ".join(f"{number} {name}" for name, number in tally.items() if number)]
    if epoch:
        words.append(f"epoch {epoch} of {epochs}")
    if (found := best(run)) is not None:
        words.append(best_words(run, found))
    if steps := rungs_words(run):
        words.append(steps)
    if left := left_s(run, at):
        words.append(f"{duration(left)} left")
    words.append(f"{device_hours(run, at):.3g} device-hours")
    return words


def best_words(run: Reached, found: Best) -> str:
    """``best so far: trial 12, NLL 0.043 (lr 0.01)``."""
    face = look(found.metric)
    noun = "trial" if run.spec().search else "member"
    names = short_keys(found.values)
    keys = list(found.values.items())[:VALUES_UP_TO]
    shown = ", ".join(f"{clean(names[key], limit=40)} {brief(own)}" for key, own in keys)
    shown += ", …" if len(found.values) > VALUES_UP_TO else ""
    tail = f" ({shown})" if shown else ""
    return (
        f"best so far: {noun} {found.number}, {face.label} {face.show(found.value)} {face.unit}".rstrip()
        + tail
    )


def rungs_words(run: Reached) -> str:
    """``rungs: 64 → 32 at 4, 32 → 16 at 8, next at 16``; empty without a search that stops trials."""
    decided = [rung for rung in rungs(run) if rung.went_on]
    ahead = [rung for rung in rungs(run) if not rung.went_on]
    words = [f"{rung.came} → {rung.went_on} at {rung.epoch}" for rung in decided[-RUNGS_UP_TO:]]
    words += [f"next at {ahead[0].epoch}"] if ahead and run.state == "running" else []
    return f"rungs: {', '.join(words)}" if words else ""


def picture(runs: Sequence[Reached]) -> Group:
    """A run with its members, or several, one a row."""
    if len(runs) > 1:
        return Group(_runs_table(runs))
    (run,) = runs
    title = Text.assemble((clean(run.spec().name), "bold"), f": {run.state}")
    notes = [Text(clean(note, limit=200), style="yellow") for note in run.notes[-3:]]
    return Group(title, *map(Text, facts(run)), members_table(run), *notes)


def members_table(run: Reached, most: int = MOST_ROWS) -> Table:
    """The members, the most telling first where there are too many."""
    face, size, going = look(metric_of(run)), seeds(run), run.state == "running"
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("member", *(["trial"] if size > 1 else []), "status"):
        table.add_column(name, no_wrap=True)
    for name in ("epoch", "train loss", f"val {face.label}"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("where", no_wrap=True)
    rows = run.ordered()
    shown = rows if len(rows) <= most else sorted(rows, key=lambda m: _rank(m, face))[:most]
    for member in (*shown, *([run.single] if run.single else [])):
        group = group_of(member, going=going)
        status = "retrying" if member.status == "retrying" else group
        last = member.last(face.name)
        loss = member.curve[-1][1] if member.curve else None
        cells = [member.spec.id, *([str(member.spec.index // size)] if size > 1 else [])]
        numbers = [str(member.epoch) if member.epoch else DASH, DASH if loss is None else f"{loss:.4g}"]
        numbers += [face.show(last) if last is not None else DASH]
        where = clean(member.where.get("node") or DASH, limit=24)
        table.add_row(*cells, Text(status, style=STYLES[status]), *numbers, Text(where))
    if len(rows) > most:
        table.caption = Text(f"and {len(rows) - most:,} more")
        table.caption_justify = "left"
    return table


def _rank(member: Member, face: Look) -> tuple[int, float, int]:
    """The most telling first: by group, then the better one, then by index."""
    last = member.last(face.name)
    worth = math.inf if last is None or math.isnan(last) else -last if face.higher_is_better else last
    return ORDER.index(group_of(member)), worth, member.spec.index


def _runs_table(runs: Sequence[Reached]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("run", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("done", "training", "pending", "stopped", "sick", "epoch", "best", "left", "device-hours"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        at, tally, (epoch, epochs), found = now(), counts(run), epoch_of(run), best(run)
        face = look(metric_of(run))
        shown = f"{face.label} {face.show(found.value)}" if found else DASH
        numbers = [tally["done"], tally["training"], tally["pending"], tally["stopped"]]
        numbers += [tally["sick"] + tally["failed"]]
        cells = [*map(str, numbers), f"{epoch}/{epochs}", shown, duration(left_s(run, at))]
        state = Text(run.state, style={"running": "cyan", "finished": "green"}.get(run.state, "yellow"))
        table.add_row(Text(clean(run.spec().name, limit=40)), state, *cells, f"{device_hours(run, at):.3g}")
    return table
