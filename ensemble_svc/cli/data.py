"""Verbs that bring data to finished ensembles: ``evaluate``, ``predict``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble_svc.cli.options import Json, RunFolder, console, print_json

if TYPE_CHECKING:
    from ensemble_svc.spreading import Spread

Address = Annotated[
    str | None,
    typer.Option(
        help="A running Ray cluster, e.g. 10.0.0.1:6379: its actors read the files, each some; without it this process "
        "reads them one after another. One file is read here."
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first file that cannot be read.")]


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verbs."""
    app.command()(evaluate)
    app.command()(predict)


def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN…")],
    data: Annotated[
        str | None,
        typer.Option(
            help="A labelled source, as in a job: {name: csv, path: new.csv, target: y}. The path may be a "
            "folder of files or a pattern."
        ),
    ] = None,
    ood: Annotated[
        list[str] | None,
        typer.Option(help="Rows from elsewhere to be told apart: a path or a source; repeatable."),
    ] = None,
    shift: Annotated[
        bool, typer.Option("--shift", help="Images too that are noisy, blurred, …, at severities 1 to 5.")
    ] = False,
    slices: Annotated[
        list[str] | None,
        typer.Option(help="A column by whose values to measure; repeatable.", metavar="COLUMN"),
    ] = None,
    strict: Strict = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Measure finished ensembles: on their own splits, or on new labelled data."""
    from ensemble_svc.evaluating import Wish
    from ensemble_svc.evaluating import evaluate as measure
    from ensemble_svc.store.run import Run

    wish = Wish(data, tuple(ood or ()), shift, tuple(slices or ()), strict)
    found: dict[str, Any] = {}
    broken: list[str] = []
    for folder in runs:
        with rows_told(folder.name) as tell:
            one = measure(Run.open(folder), wish, Path.cwd(), tell=tell, spread=_spread(address))
        found[str(folder)] = one.metrics
        broken += [fault for fault in one.broken if fault not in broken]
        if not as_json:
            _show(folder if len(runs) > 1 else None, one.metrics)
    if as_json:
        print_json(found if len(runs) > 1 else found[str(runs[0])])
    _end(broken)


def _show(folder: Path | None, metrics: dict[str, Any]) -> None:
    from ensemble_svc.cli.measures import foreign_table, remarks, shift_table, slices_tables
    from ensemble_svc.cli.tables import metrics_table
    from ensemble_svc.report.decision import measured

    out = console()
    if folder is not None:
        out.print(f"\n{folder}", style="bold", highlight=False, markup=False)
    out.print(metrics_table(metrics))
    for sentence in measured(metrics):
        out.print(sentence, highlight=False, markup=False)
    for split in metrics.values():
        for table in (*slices_tables(split), *shift_table(split), *foreign_table(split)):
            out.print(table)
        for words in remarks(split):
            style = "yellow" if words.startswith("warning") else "dim"
            out.print(words, style=style, highlight=False, markup=False)


def _end(broken: list[str]) -> None:
    """Name what could not be read; then the command has failed, though the rest went on."""
    for fault in broken:
        typer.echo(f"error: {fault}", err=True)
    if broken:
        raise typer.Exit(1)


def predict(
    run: RunFolder,
    source: Annotated[
        Path,
        typer.Option(
            "--input", help="csv, parquet, npz, a folder of images; or several files: a folder or a pattern."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", help="Where to write: .parquet, .csv or .npz.")],
    id_column: Annotated[str | None, typer.Option("--id", help="Column with each row's id.")] = None,
    strict: Strict = False,
    address: Address = None,
) -> None:
    """Predict new rows: the mean, the predictive entropy and the mutual information of each."""
    from ensemble_svc.batch import predict_file

    with rows_told(source.name) as tell:
        done = predict_file(
            run, source, output, id_column=id_column, strict=strict, tell=tell, spread=_spread(address)
        )
    typer.echo(f"{done.rows:,} rows → {output}")
    _end(list(done.broken))


def _spread(address: str | None) -> Spread:
    """Who reads several files: this process, or actors of a cluster."""
    if address is None:
        from ensemble_svc.spreading import in_turn

        return in_turn
    from ensemble_svc.cluster.batch import Actors

    return Actors(address)


@contextmanager
def rows_told(what: str) -> Iterator[Callable[[int], None]]:
    """Rows so far and rows a second on the terminal, while they are read; nothing where there is none."""
    if not sys.stderr.isatty():
        yield lambda rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    words = TextColumn("{task.completed:,.0f} rows"), TextColumn("{task.fields[rate]}"), TimeElapsedColumn()
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), *words, console=Console(stderr=True), transient=True
    )
    with bar:
        task = bar.add_task(what.replace("[", "\\["), total=None, rate="")

        def tell(rows: int) -> None:
            spent = bar.tasks[0].elapsed or 0
            bar.update(task, completed=rows, rate=f"{rows / spent:,.0f} rows/s" if spent else "")

        yield tell
