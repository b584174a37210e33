"""The verb ``find-lr``: a few steps at many learning rates, and which to take."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ensemble_svc.cli.options import JobFile, Json, Overrides, console, print_json, read_job

if TYPE_CHECKING:
    from rich.table import Table

    from ensemble_svc.finding import Found
    from ensemble_svc.planning import Prepared
    from ensemble_svc.spec.job import JobSpec

EIGHTHS = " ▏▎▍▌▋▊▉█"
WIDTH = 40
"""Blocks of the longest bar."""


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verb."""
    app.command("find-lr")(find_lr)


def find_lr(job: JobFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Try many learning rates for a few steps, all in one pack, and say which to take."""
    from ensemble_svc.finding import find
    from ensemble_svc.planning import prepare

    spec = read_job(job, overrides)
    found = find(spec, prepare(spec, Path.cwd()))
    if as_json:
        print_json(found.as_data())
        return
    out = console()
    out.print(_plot(found))
    out.print(
        f"Range test (lowest loss after {found.num_steps} steps): {found.lowest:.3g}. "
        f"Halving (largest that does not diverge, and learns nearly as much): {found.largest:.3g}.\n"
        f"Take one with --set training.optimizer.lr={found.lowest:.3g}. training.optimizer.lr=auto takes the "
        "halving's, the boldest; let a schedule that falls follow it.",
        highlight=False,
        soft_wrap=True,
    )


def resolved(job: JobSpec, prepared: Prepared, run: Path | None = None) -> JobSpec:
    """The job with the learning rate that ``auto`` stands for, told on standard error; torch is loaded for that alone.

    Args:
        run: a run folder, which may know it already.
    """
    if job.training.optimizer.lr != "auto":
        return job
    from ensemble_svc.finding import settled

    known = settled(job, prepared, run)
    typer.echo(f"training.optimizer.lr: auto is {known.rate:.4g}", err=True)
    return known.job


def _plot(found: Found) -> Table:
    """The loss against the rate, a bar for each."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, title=Text("Loss after a few steps at each learning rate", style="bold"))
    for head in ("Rate", "Loss"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, min_width=WIDTH)
    table.add_column("", no_wrap=True)
    kept = [trial.loss for trial in found.trials if not trial.diverged]
    low, high = min(kept), max(*kept, found.start)
    for trial in found.trials:
        marks = [word for word, rate in _marks(found) if rate == trial.rate]
        cells = ("diverges", "red") if trial.diverged else (_bar(trial.loss, low, high), "cyan")
        loss = f"{trial.loss:.4g}" if math.isfinite(trial.loss) else "–"
        table.add_row(f"{trial.rate:.3g}", loss, Text(*cells), Text(", ".join(marks), style="bold"))
    return table


def _marks(found: Found) -> list[tuple[str, float]]:
    return [("← halving", found.largest), ("← range test", found.lowest)]


def _bar(value: float, low: float, high: float) -> str:
    """A bar as long as the value, from the lowest one's single block to the highest one's ``WIDTH``."""
    share = (value - low) / (high - low) if high > low else 0.0
    eighths = 8 + round(share * 8 * (WIDTH - 1))
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()
