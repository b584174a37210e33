"""Verbs that make something smaller of a finished run: ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ensemble_svc.cli.options import Json, RunFolder, print_json

if TYPE_CHECKING:
    from ensemble_svc.exporting import Exported


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verbs."""
    app.command()(export)


def export(
    run: RunFolder,
    output: Annotated[
        Path, typer.Option("--output", help="The file to write: .pt2 (torch.export) or .onnx.")
    ],
    as_json: Json = False,
) -> None:
    """Write the whole chosen ensemble as one graph, preprocessing included, checked against the run."""
    from ensemble_svc.exporting import export as write
    from ensemble_svc.store.run import Run

    found = write(Run.open(run), output)
    if as_json:
        print_json(_facts(found))
        return
    typer.echo(f"{found.num_members} members, {found.num_bytes:,} bytes → {found.path}")
    rows = " and ".join(f"{count:,} {name} rows" for name, count in found.checked.items())
    each = ", ".join(f"{name} {value:.1g}" for name, value in found.differences.items())
    typer.echo(f"largest difference from the run on {rows}: {each}")
    if found.note:
        typer.echo(f"warning: checked on random rows alone; {found.note}", err=True)


def _facts(found: Exported) -> dict[str, object]:
    return {
        "path": str(found.path),
        "members": found.num_members,
        "bytes": found.num_bytes,
        "checked": dict(found.checked),
        "differences": dict(found.differences),
        "note": found.note,
    }
