"""Verbs that bring data to a finished ensemble: ``evaluate``, ``predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensemble_svc.cli.options import Json, RunFolder, console, print_json


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verbs."""
    app.command()(evaluate)
    app.command()(predict)


def evaluate(
    run: RunFolder,
    data: Annotated[
        str | None,
        typer.Option(help="A labelled source, as in a job: {name: csv, path: new.csv, target: y}."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a finished ensemble: on its own splits, or on new labelled data."""
    from ensemble_svc.store.run import Run

    found = Run.open(run)
    if data is None:
        metrics = found.metrics()
    else:
        from ensemble_svc.batch import evaluate_source

        metrics = evaluate_source(found, data, Path.cwd())
    if as_json:
        print_json(metrics)
        return

    from ensemble_svc.cli.tables import metrics_table

    console().print(metrics_table(metrics))


def predict(
    run: RunFolder,
    source: Annotated[Path, typer.Option("--input", help="csv, parquet, npz or a folder of images.")],
    output: Annotated[Path, typer.Option("--output", help="Where to write: .parquet, .csv or .npz.")],
    id_column: Annotated[str | None, typer.Option("--id", help="Column with each row's id.")] = None,
) -> None:
    """Predict new rows: the mean, the predictive entropy and the mutual information of each."""
    from ensemble_svc.batch import predict_file

    rows = predict_file(run, source, output, id_column=id_column)
    typer.echo(f"{rows:,} rows → {output}")
