"""Verbs about runs: ``status``, ``report``, ``doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from ensemble_svc.cli.options import Json, RunFolder, console, print_json


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verbs."""
    app.command()(status)
    app.command()(report)
    app.command()(doctor)


def status(
    run: RunFolder,
    verify: Annotated[bool, typer.Option("--verify", help="Check every file's hash.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Live until the run, or each run of a storage folder, ends.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what each member of a run has reached, from its journal."""
    if watch:
        from ensemble_svc.cli.watching import watch as look_on

        look_on(run, as_json=as_json)
        return
    from ensemble_svc.errors import CorruptArtifact, StoreError
    from ensemble_svc.report.text import count
    from ensemble_svc.store.driven import runs_in
    from ensemble_svc.store.folder import Folder
    from ensemble_svc.store.status import damage, status_of

    if (runs := runs_in(run)) and run not in runs:
        words = f"is no run but holds {count(len(runs), 'run')}; give one, or --watch, which shows a folder of runs"
        raise StoreError(f"{run} {words}")
    found = status_of(Folder.open(run))
    broken = damage(Folder.open(run)) if verify else []
    if as_json:
        print_json({**found, **({"damaged": broken} if verify else {})})
    else:
        from ensemble_svc.cli.roster import status_table

        console().print(status_table(found))
    if broken:
        raise CorruptArtifact(
            "damaged or missing: "
            + ", ".join(broken)
            + f"\nRun the training command of {run} again to make them anew."
        )
    if verify and not as_json:
        typer.echo("every file is as it was written")


def report(run: RunFolder, as_json: Json = False) -> None:
    """Print a finished run's numbers and write its report.html anew."""
    from ensemble_svc.cli.results import show_run
    from ensemble_svc.renewing import renew
    from ensemble_svc.store.run import Run

    found = Run.open(run)
    note = renew(found)
    show_run(found, as_json=as_json)
    if note and not as_json:
        console().print(note, highlight=False, markup=False)


def doctor() -> None:
    """Tell what this machine offers: cores, memory, GPUs, versions, what is missing."""

    from ensemble_svc.cli.health import machine_table

    console().print(machine_table())
