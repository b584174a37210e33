"""The command line: ``ensemble-svc VERB``."""

from __future__ import annotations

import sys

import typer

from ensemble_svc.cli import (
    again,
    cluster,
    dashboard,
    data,
    finding,
    inspecting,
    job,
    run_folder,
    serving,
    training,
)
from ensemble_svc.collector import collect_seldom, leave_the_rest
from ensemble_svc.errors import EnsembleSvcError

app = typer.Typer(
    name="ensemble-svc",
    help="Train, average, calibrate and honestly measure ensembles of neural networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for room in (training, again, data, serving, run_folder, job, inspecting, finding, cluster, dashboard):
    room.add_verbs(app)


def run() -> None:
    """Run the command line; our own errors are one message on stderr, bugs keep their traceback."""
    sys.path.insert(0, "")  # the user's own models and sources lie in the current folder
    collect_seldom()
    try:
        app()
    except EnsembleSvcError as fault:
        sys.stderr.write(f"error: {fault}\n")
        sys.exit(fault.exit_code)
    finally:
        leave_the_rest()
