"""One job over several values of one key, such as the twenty standard splits of a data set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ensemble_svc.cli.options import console, print_json, read_job
from ensemble_svc.cli.training import place
from ensemble_svc.errors import EnsembleSvcError, QuorumError, SpecError
from ensemble_svc.report.bytask import tasks_of, titled
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.document import write_document
from ensemble_svc.store.run import Run

if TYPE_CHECKING:
    from ensemble_svc.pipeline import Listener


def train_each(
    job: Path, overrides: list[str], each: str, *, out: Path | None, address: str | None, as_json: bool
) -> None:
    """Train the job once per value, each in a folder of its own, and print the mean over them.

    Args:
        each: ``key=A:B`` (whole numbers from A to B-1) or ``key=v1,v2,…``.

    Raises:
        QuorumError: after all runs have ended, naming those that fell short; the others are summarised.
    """
    key, values = parse_each(each)
    jobs = {value: _read(job, overrides, f"{key}={value}") for value in values}
    first = jobs[values[0]]
    folder = out or Path(first.compute.storage).expanduser() / first.name
    folders = {value: folder / f"{key}={value}" for value in values}
    with place(first, address, folder, needs="ensemble_svc.pipeline") as executor:
        from ensemble_svc import pipeline

        with _shown(first.name, quiet=as_json) as listener:
            outcomes = pipeline.train_together(
                {folders[value]: jobs[value] for value in values},
                directory=Path.cwd(),
                executor=executor,
                listener=listener,
            )
    ended = dict(zip(values, outcomes, strict=True))
    short = {value: str(outcome.shortfall) for value, outcome in ended.items() if outcome.shortfall}
    summary = summarize_each({v: outcome.run.metrics() for v, outcome in ended.items() if v not in short})
    body = {"key": key, "values": values, "summary": summary, "short": short}
    write_document(folder / "each.json", body)
    if as_json:
        print_json(body)
    elif summary:
        console().print(_table(key, summary))
    if short:
        raise QuorumError("\n".join(f"{key}={value}: {why}" for value, why in short.items()))


def _read(job: Path, overrides: list[str], own: str) -> JobSpec:
    """The job of one value, which is named in what is said against it."""
    try:
        return read_job(job, [*overrides, own])
    except EnsembleSvcError as fault:
        fault.args = (f"{own}: {fault}",)
        raise


@contextmanager
def _shown(name: str, *, quiet: bool) -> Iterator[Listener]:
    """Listeners that show members, and each run's numbers when it ends, on standard error.

    Args:
        quiet: the runs' numbers alone, as for a script.
    """
    from ensemble_svc.cli.live import MembersView
    from ensemble_svc.pipeline import Listener

    screen = Console(stderr=True)

    def finished(run: Run) -> None:
        if "metrics.json" in run.manifest()["files"]:
            screen.print(f"{run.path.name}: {_brief(run.metrics())}", highlight=False, soft_wrap=True)

    if quiet:
        yield Listener(finished=finished)
        return
    with MembersView(name, screen) as view:
        yield Listener(
            found=view.found,
            planned=view.planned,
            progress=view.progress,
            failure=view.failure,
            finished=finished,
        )


def parse_each(text: str) -> tuple[str, list[str]]:
    """``a.b=0:3`` → ``("a.b", ["0", "1", "2"])``.

    Raises:
        SpecError: anything of another form, or no value.
    """
    key, equals, rest = text.partition("=")
    span = re.fullmatch(r"(\d+):(\d+)", rest)
    values = (
        [str(i) for i in range(int(span[1]), int(span[2]))] if span else [v for v in rest.split(",") if v]
    )
    if not (key and equals and values):
        raise SpecError(f"--each {text}: write KEY=A:B (whole numbers from A to B-1) or KEY=V1,V2")
    return key, list(dict.fromkeys(values))


def summarize_each(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard error over the runs, for each split, of the ensemble and of the mean member.

    Of several tasks there is a ``<task>: <split>`` for each. Empty without runs.
    """
    summary: dict[str, Any] = {}
    for split, first in next(iter(found.values()), {}).items():
        for task in tasks_of(first):
            runs = [tasks_of(metrics[split])[task] for metrics in found.values()]
            summary[titled(task, split)] = {
                "ensemble": _spread([run["ensemble"] for run in runs]),
                "mean_member": _spread([run["members"]["mean"] for run in runs]),
            }
    return summary


def _spread(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    def one(values: list[float]) -> dict[str, float]:
        error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        return {"mean": mean(values), "standard_error": error, "runs": len(values)}

    return {name: one([row[name] for row in rows]) for name in rows[0]}


def _brief(metrics: dict[str, Any]) -> str:
    split = "test" if "test" in metrics else next(iter(metrics))
    return "; ".join(
        titled(task, ", ".join(f"{name} {value:.4f}" for name, value in own["ensemble"].items()))
        for task, own in tasks_of(metrics[split]).items()
    )


def _table(key: str, summary: dict[str, Any]) -> Table:
    table = Table("split", "metric", "ensemble", "mean member", title=f"over {key}: mean ± standard error")
    for split, parts in summary.items():
        for name, value in parts["ensemble"].items():
            member = parts["mean_member"][name]
            cells = [f"{v['mean']:.4f} ± {v['standard_error']:.4f}" for v in (value, member)]
            table.add_row(split, name, *cells)
    return table
