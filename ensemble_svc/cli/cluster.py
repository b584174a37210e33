"""Verbs for jobs on a remote cluster: ``submit``, ``jobs``, ``logs``, ``stop``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ensemble_svc.cli.options import JobFile, Json, Overrides, print_json, read_job

JobAddress = Annotated[
    str,
    typer.Option(help="The cluster's job server, e.g. http://head:8265.", envvar="RAY_API_SERVER_ADDRESS"),
]
JobId = Annotated[str, typer.Argument(help="The id that submit printed.", metavar="ID")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Accept a cluster that asks for no token.")]


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verbs."""
    app.command()(submit)
    app.command()(jobs)
    app.command()(logs)
    app.command()(stop)
