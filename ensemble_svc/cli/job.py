"""Verbs about job files: ``validate``, ``schema``, ``choices``."""

from __future__ import annotations

from typing import Annotated

import typer

from ensemble_svc.cli.options import JobFile, Json, Overrides, console, print_json, read_job


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verbs."""
    app.command()(validate)
    app.command()(schema)
    app.command()(choices)


def validate(
    job: JobFile,
    overrides: Overrides = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print the job with every default written out.")
    ] = False,
) -> None:
    """Check a job file; every fault is listed at once."""
    spec = read_job(job, overrides)
    if resolved:
        from ensemble_svc.spec.load import dump_job

        typer.echo(dump_job(spec), nl=False)
        return
    from ensemble_svc.report.text import count
    from ensemble_svc.spec.advice import advice
    from ensemble_svc.tracking.check import check_tracker

    check_tracker(spec)
    members = count(spec.ensemble.members, "member")
    typer.echo(f"{job}: valid ({spec.task}, {members}, model {spec.model.name})")
    for warning in advice(spec):
        typer.echo(f"warning: {warning}", err=True)


def schema() -> None:
    """Print the JSON schema of job files, for editors."""
    from ensemble_svc.spec.catalogue import job_schema

    print_json(job_schema())


def choices(
    kind: Annotated[str | None, typer.Argument(help="One kind, e.g. optimizer; all without it.")] = None,
    as_json: Json = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="All of them, as docs/choices.md has them.")
    ] = False,
) -> None:
    """List what can be written where a job file takes a choice."""
    if markdown:
        from ensemble_svc.spec.handbook import page

        typer.echo(page(), nl=False)
        return
    from ensemble_svc.errors import UnknownChoice
    from ensemble_svc.spec.catalogue import choices as catalogue

    found = catalogue()
    if kind is not None and kind not in found:
        raise UnknownChoice("kind", kind, found)
    shown = {kind: found[kind]} if kind else found
    if as_json:
        print_json(shown)
        return

    from ensemble_svc.cli.tables import choices_table

    out = console()
    for name, entries in shown.items():
        out.print(choices_table(name, entries))
