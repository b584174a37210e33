"""Verbs that make something smaller of a finished run: ``export``, ``distill``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble_svc.cli.options import Address, Json, Overrides, RunFolder, console, print_json, read_job
from ensemble_svc.cli.training import place, terminable

if TYPE_CHECKING:
    from rich.table import Table

    from ensemble_svc.exporting import Exported


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verbs."""
    app.command()(export)
    app.command()(distill)


def export(
    run: RunFolder,
    output: Annotated[
        Path, typer.Option("--output", help="The file to write: .pt2 (torch.export) or .onnx.")
    ],
    as_json: Json = False,
) -> None:
    """Write the whole chosen ensemble as one graph, preprocessing included, checked against the run."""
    from ensemble_svc.exporting import export as write
    from ensemble_svc.report.text import count
    from ensemble_svc.store.run import Run

    found = write(Run.open(run), output)
    if as_json:
        print_json(_facts(found))
        return
    typer.echo(f"{count(found.num_members, 'member')}, {found.num_bytes:,} bytes → {found.path}")
    rows = " and ".join(f"{number:,} {name} rows" for name, number in found.checked.items())
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


def distill(
    run: RunFolder,
    output: Annotated[Path, typer.Option("--output", help="The student's run folder.")],
    temperature: Annotated[
        float, typer.Option(help="Softens the probabilities that it learns; 1 leaves them as they are.")
    ] = 1.0,
    overrides: Overrides = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Train one network on what the ensemble says, and measure what is lost; ``--set model.…`` gives another one."""
    from ensemble_svc.distilling import student_overrides
    from ensemble_svc.store.document import read_document
    from ensemble_svc.store.run import DISTILLATION, Run

    found = Run.open(run)
    job = read_job(run / "job.yaml", student_overrides(found, overrides or []))
    with terminable(), place(job, address, output) as there:
        from ensemble_svc.cli.live import follow
        from ensemble_svc.distilling import distill as teach

        with follow(job, quiet=as_json) as listener:
            student = teach(found, job, output, temperature=temperature, executor=there, listener=listener)
    if not (student.path / DISTILLATION).is_file():
        typer.echo(f"{student.path}: trained; {run} has no test rows, so nothing is compared")
        return
    facts = read_document(student.path / DISTILLATION)
    if as_json:
        print_json(
            {name: value for name, value in facts.items() if name not in ("schema_version", "checksum")}
        )
        return
    console().print(_standing(facts))
    typer.echo(f"student: {student.path}")


def _standing(facts: dict[str, Any]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from ensemble_svc.report.looks import look, ordered

    table = Table(box=box.SIMPLE, title=Text(f"{facts['rows']:,} test rows", style="bold"))
    table.add_column("Metric")
    for name in ("Student", f"Ensemble of {facts['members']}", "Mean member", "Gain over ensemble"):
        table.add_column(name, justify="right")
    for name in ordered(facts["gain"]):
        face, gain = look(name), facts["gain"][name]
        places = 2 if face.unit == "%" else 4
        shown = [face.show(facts[who][name], 4) for who in ("student", "ensemble", "member")]
        low, high, middle = (face.bare(gain[key], places, signed=True) for key in ("low", "high", "estimate"))
        table.add_row(face.label, *shown, f"{middle} [{low}, {high}]")
    is_share = "accuracy" in facts["gain"]
    agreement = [f"{facts[who]['agreement']:.4g}" for who in ("student", "ensemble", "member")]
    table.add_row("Agreement" if is_share else "Distance", *agreement, "")
    words = (
        "share of rows with the ensemble's class"
        if is_share
        else "root mean square from the ensemble's means"
    )
    table.caption = f"a gain above 0 is better; {'agreement' if is_share else 'distance'}: {words}"
    return table
