"""Verbs that go on from finished runs: ``reselect``, ``grow``, ``compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble_svc.cli.options import Address, Json, Overrides, RunFolder, console, print_json, read_job

if TYPE_CHECKING:
    from rich.table import Table


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verbs."""
    app.command()(reselect)
    app.command()(grow)
    app.command()(compare)


def reselect(
    run: RunFolder,
    combine: Annotated[str | None, typer.Option(help="As aggregate.combine, e.g. geometric.")] = None,
    select: Annotated[
        str | None, typer.Option(help="As aggregate.select, e.g. greedy or '{name: top_k, k: 3}'.")
    ] = None,
    calibrate: Annotated[str | None, typer.Option(help="As aggregate.calibrate, e.g. temperature.")] = None,
    data: Annotated[
        str | None, typer.Option(help="A labelled source whose rows decide, in place of the validation rows.")
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Decide a finished run's ensemble anew, without training: other members, weights, calibration."""
    from ensemble_svc.cli.results import show_run
    from ensemble_svc.store.run import Run

    found = Run.open(run)
    asked = {"combine": combine, "select": select, "calibrate": calibrate}
    changed = [f"aggregate.{key}={value}" for key, value in asked.items() if value is not None]
    job = read_job(run / "job.yaml", [*changed, *(overrides or [])])
    from ensemble_svc.reselecting import check_change
    from ensemble_svc.reselecting import reselect as decide_anew

    check_change(found, job)
    decide_anew(found, job, data=data, directory=Path.cwd())
    show_run(found, as_json=as_json)


def grow(
    run: RunFolder,
    members: Annotated[int, typer.Option(help="Members the run is to have, the old ones included.", min=1)],
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Train more members of a run and decide its ensemble anew, as its job says; the old members stay as they are."""
    from ensemble_svc.cli.training import train
    from ensemble_svc.errors import SpecError
    from ensemble_svc.store.manifest import is_reselected
    from ensemble_svc.store.run import Run

    found = Run.open(run)
    job, reselected = found.job(), is_reselected(found.journal)
    before = job.ensemble.members
    if members < before:
        raise SpecError(f"--members {members}: {run} has {before} members already; a run only grows")
    changed = [f"ensemble.members={members}"]
    if job.search is not None:
        trials, rest = divmod(members, job.search.seeds_per_trial)
        if rest:
            words = f"each trial of {run} has {job.search.seeds_per_trial} members"
            raise SpecError(f"--members {members}: {words}; give a multiple of that")
        changed.append(f"search.trials={trials}")
    train(run / "job.yaml", out=run, overrides=changed, address=address, as_json=as_json)
    if reselected and not as_json:
        words = (
            "the ensemble is decided as the run's job says; what was reselected before is an earlier version"
        )
        console().print(f"{words}: reselect again for its choices", highlight=False)


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; gains are over the first.", metavar="RUN…")
    ],
    as_json: Json = False,
) -> None:
    """Put finished runs side by side on the test rows they share, with paired intervals."""
    from ensemble_svc.comparing import compare as put_together
    from ensemble_svc.store.run import Run

    found = put_together([Run.open(path) for path in runs])
    if as_json:
        print_json(found)
        return
    for task in found["runs"][0].get("tasks", {"": {}}):
        console().print(_table(found, task))


def _table(found: dict[str, Any], task: str) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from ensemble_svc.report.bytask import titled
    from ensemble_svc.report.looks import look, ordered

    title = titled(task, f"{found['rows']:,} test rows")
    table = Table(box=box.SIMPLE, title=Text(title, style="bold"))
    table.add_column("Run", overflow="fold")
    table.add_column("Members", justify="right")
    each = [one["tasks"][task] if task else one for one in found["runs"]]
    names = ordered(each[0]["metrics"])
    for name in names:
        table.add_column(look(name).label, justify="right")
    for one, numbers in zip(found["runs"], each, strict=True):
        cells = [_cell(name, numbers) for name in names]
        table.add_row(Text(one["run"]), f"{one['members']}", *cells)
    table.caption = (
        "below each value: the gain over the first run with its paired interval; above 0 is better"
    )
    return table


def _cell(name: str, one: dict[str, Any]) -> str:
    from ensemble_svc.report.looks import look

    face, gain = look(name), one["gain"].get(name)
    value = face.show(one["metrics"][name], 3 if face.unit != "%" else 1)
    if gain is None:
        return value
    places = 2 if face.unit == "%" else 4
    low, high, middle = (face.bare(gain[key], places, signed=True) for key in ("low", "high", "estimate"))
    return f"{value}\n{middle}\n[{low}, {high}]"
