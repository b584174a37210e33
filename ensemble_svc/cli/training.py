"""``train`` and ``plan``."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ensemble_svc.cli.options import Address, JobFile, Json, Overrides, console, print_json, read_job

if TYPE_CHECKING:
    from ensemble_svc.plan.executor import Executor
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

        with _terminable():
            train_each(job, changed, each, out=out, address=address, as_json=as_json)
        return
    from ensemble_svc import pipeline
    from ensemble_svc.cli.live import follow
    from ensemble_svc.cli.results import show_run

    with _terminable(), place(spec, address, out) as there, follow(spec, quiet=as_json) as listener:
        run = pipeline.train(spec, out=out, directory=Path.cwd(), executor=there, listener=listener)
    show_run(run, as_json=as_json)


def plan(job: JobFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Show where every member would run and why; start nothing."""
    from ensemble_svc.local import this_machine
    from ensemble_svc.planning import make_plan, prepare

    spec = read_job(job, overrides)
    prepared = prepare(spec, Path.cwd())
    found = make_plan(spec, prepared, this_machine())
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    from rich.text import Text

    from ensemble_svc.cli.tables import plan_table

    out = console()
    out.print(plan_table(found))
    for warning in prepared.warnings:
        out.print(Text.assemble(("warning: ", "yellow"), warning))


@contextmanager
def place(spec: JobSpec, address: str | None, out: Path | None) -> Iterator[Executor]:
    """The executor that the job or the address asks for, for as long as the block lasts."""
    if spec.compute.executor == "local" and address is None:
        from ensemble_svc.local import LocalExecutor

        yield LocalExecutor(spec.compute.retries)
        return
    from ensemble_svc.cluster.executor import ray_executor

    with ray_executor(
        spec, address=address, run=out or Path(spec.compute.storage).expanduser() / spec.name
    ) as there:
        yield there


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM and Ctrl-C into an orderly stop: nothing committed is lost, exit status 130."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped; what is committed is kept, and the same command goes on from there", err=True)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
