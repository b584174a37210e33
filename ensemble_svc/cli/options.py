"""Arguments that several verbs share, and how they are read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from ensemble_svc.spec.job import JobSpec

JobFile = Annotated[Path, typer.Argument(help="The job: a YAML file.", metavar="JOB")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one key, e.g. training.epochs=5; repeatable.", metavar="KEY=VALUE"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Address = Annotated[
    str | None, typer.Option(help="A running Ray cluster, e.g. 10.0.0.1:6379; without it one is embedded.")
]


def read_job(path: Path, overrides: list[str] | None) -> JobSpec:
    """The job file with its overrides, or every fault of it."""
    from ensemble_svc.spec.load import load_job

    return load_job(path, overrides or ())


def console() -> Console:
    """A terminal as wide as it is; 100 columns where output goes to a file or a pipe."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 100)


def print_json(value: object) -> None:
    """A value as JSON on stdout, nothing else."""
    import json

    typer.echo(json.dumps(value, indent=1))
