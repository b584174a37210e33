"""``train`` and ``plan``."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ensemble_svc.cli.finding import resolved
from ensemble_svc.cli.options import Address, JobFile, Json, Overrides, console, print_json, read_job

if TYPE_CHECKING:
    from ensemble_svc.plan.executor import Executor, Resources
    from ensemble_svc.plan.measurement import Measured
    from ensemble_svc.plan.plan import Plan
    from ensemble_svc.spec.job import JobSpec


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verbs."""
    app.command()(train)
    app.command()(plan)


def train(
    job: JobFile,
    out: Annotated[Path | None, typer.Option(help="The run folder; by default compute.storage/name.")] = None,
    overrides: Overrides = None,
    address: Address = None,
    executor: Annotated[
        Literal["ray", "local"] | None, typer.Option(help="Overrides compute.executor.")
    ] = None,
    each: Annotated[
        str | None,
        typer.Option(
            help="Run the job once per value, e.g. data.split.index=0:20; a summary follows.",
            metavar="KEY=A:B",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train the job's members, combine and measure them; the same command again goes on where it was."""
    changed = [*(overrides or []), *([f"compute.executor={executor}"] if executor else [])]
    spec = read_job(job, changed)
    if each is not None:
        from ensemble_svc.cli.repeat import train_each

        with terminable():
            train_each(job, changed, each, out=out, address=address, as_json=as_json)
        return
    with terminable(), place(spec, address, out, needs="ensemble_svc.pipeline") as there:
        from ensemble_svc import pipeline
        from ensemble_svc.cli.live import follow

        folder = out or Path(spec.compute.storage).expanduser() / spec.name
        with follow(spec, run=folder, quiet=as_json) as listener:
            run = pipeline.train(spec, out=out, directory=Path.cwd(), executor=there, listener=listener)
    from ensemble_svc.cli.results import show_run

    show_run(run, as_json=as_json)


def plan(
    job: JobFile,
    overrides: Overrides = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time a few steps first, and print the table they gave.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="The run folder whose measurements are used; compute.storage/name.")
    ] = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Show where every member would run, why, and how long it would take; train nothing."""
    from ensemble_svc.planning import make_plan, measured_in, prepare

    spec = read_job(job, overrides)
    prepared = prepare(spec, Path.cwd())
    run = out or Path(spec.compute.storage).expanduser() / spec.name
    spec = resolved(spec, prepared, run)
    if measure:
        from ensemble_svc.measuring import BUDGET_S
        from ensemble_svc.measuring import measure as time_steps

        with terminable(), place(spec, address, out) as there:
            table, resources = time_steps(spec, prepared, there, budget_s=BUDGET_S), there.resources()
    else:
        table, resources = measured_in(run), _here(spec)
    found = make_plan(spec, prepared, resources, table)
    if as_json:
        measured = {"measured": table.model_dump(mode="json")} if measure else {}
        print_json(found.model_dump(mode="json") | measured)
        return
    _print_plan(found, table if measure else None, prepared.warnings, run)


def _print_plan(found: Plan, table: Measured | None, warnings: Sequence[str], run: Path) -> None:
    from rich.text import Text

    from ensemble_svc.cli.tables import forecast_words, plan_table, timings_table

    out = console()
    for timings in table.groups.values() if table else ():
        out.print(timings_table(timings))
    out.print(plan_table(found))
    where = "" if table else f" in {run}"
    out.print(forecast_words(found.forecast, where), highlight=False, soft_wrap=True)
    for warning in warnings:
        out.print(Text.assemble(("warning: ", "yellow"), warning))


def _here(spec: JobSpec) -> Resources:
    """What the job's executor would offer on this machine; starts nothing."""
    from ensemble_svc.local import LocalExecutor, this_machine
    from ensemble_svc.plan.executor import RAY_START_S

    if spec.compute.executor == "local":
        return LocalExecutor().resources()
    return replace(this_machine(), start_s=RAY_START_S)


@contextmanager
def place(spec: JobSpec, address: str | None, out: Path | None, *, needs: str = "") -> Iterator[Executor]:
    """The executor that the job or the address asks for, for as long as the block lasts.

    Args:
        needs: a module that the block imports; it loads while Ray's processes start, for which this one only waits.
    """
    if spec.compute.executor == "local" and address is None:
        from ensemble_svc.local import LocalExecutor

        yield LocalExecutor(spec.compute.retries)
        return
    from ensemble_svc.cluster.executor import ray_executor

    if needs:  # not before Ray is loaded: no library must load in two threads at once
        Thread(target=import_module, args=(needs,), daemon=True).start()
    with ray_executor(
        spec, address=address, run=out or Path(spec.compute.storage).expanduser() / spec.name
    ) as there:
        yield there


@contextmanager
def terminable(
    words: str = "stopped; what is committed is kept, and the same command goes on from there",
) -> Iterator[None]:
    """Turn SIGTERM and Ctrl-C into an orderly stop: nothing committed is lost, exit status 130."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(words, err=True)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
