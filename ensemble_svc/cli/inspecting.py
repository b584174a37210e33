"""The verb ``inspect``: what a job's first member does before it is trained."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ensemble_svc.cli.finding import resolved
from ensemble_svc.cli.options import JobFile, Json, Overrides, console, print_json, read_job

if TYPE_CHECKING:
    from rich.table import Table

    from ensemble_svc.health.checkup import Checkup
    from ensemble_svc.plan.plan import MemberSpec
    from ensemble_svc.planning import Prepared
    from ensemble_svc.vitals.curvature import Curvature
    from ensemble_svc.vitals.watching import Activity

BLOCKS = " ▁▂▃▄▅▆▇█"


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verb."""
    app.command()(inspect)


def inspect(
    job: JobFile,
    overrides: Overrides = None,
    member: Annotated[int, typer.Option(help="Index of the member that is looked at.", min=0)] = 0,
    curvature: Annotated[
        bool, typer.Option("--curvature", help="Also find the loss's sharpest curvature: saddle or minimum.")
    ] = False,
    run: Annotated[
        Path | None,
        typer.Option(help="A run of the job: with --curvature, that of its trained member is found instead."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at a member before it is trained: activations, gradients, first loss, and what is wrong."""
    from ensemble_svc.health.checkup import check
    from ensemble_svc.health.findings import findings
    from ensemble_svc.planning import members_of, prepare, rows_of

    spec = read_job(job, overrides)
    prepared = prepare(spec, Path.cwd())
    members = members_of(resolved(spec, prepared), prepared)
    if member >= len(members):
        raise typer.BadParameter(f"the job has members 0 to {len(members) - 1}", param_hint="--member")
    chosen = members[member]
    if run is not None:
        if not curvature:
            raise typer.BadParameter("a trained member is looked at with --curvature", param_hint="--run")
        _show_bend(_bend(chosen, prepared, run), chosen, as_json=as_json)
        return
    found = check(chosen, prepared.dataset, prepared.schema, rows_of(chosen, prepared))
    sentences = findings(found)
    bent = _bend(chosen, prepared) if curvature else None
    if as_json:
        more = {"curvature": _bend_data(bent, chosen)} if bent else {}
        print_json(_as_data(found) | {"findings": sentences} | more)
        return
    out = console()
    out.print(_table(found))
    out.print(
        f"Loss at the start {found.loss:.4g}; guessing gives {found.guess:.4g}. Twenty rows: {found.few_before:.3g} → "
        f"{found.few_after:.3g} in {found.few_steps} steps, {'learned by heart' if found.learned else 'not learned'}.",
        highlight=False,
        soft_wrap=True,
    )
    for sentence in sentences:
        out.print(f"• {sentence}", style="yellow", highlight=False, markup=False)
    if not sentences:
        out.print("Nothing looks wrong.", style="green")
    if bent:
        _show_bend(bent, chosen)


def _bend(member: MemberSpec, prepared: Prepared, run: Path | None = None) -> Curvature:
    """The curvature of a member's loss at its beginning, or where a run's training left it."""
    from ensemble_svc.errors import StoreError
    from ensemble_svc.health.bend import bend
    from ensemble_svc.planning import rows_of
    from ensemble_svc.store.members import read_tensors, sealed

    weights = None
    if run is not None:
        seal = sealed(run).get(member.digest)
        if seal is None:
            raise StoreError(
                f"{run} has no trained member {member.id}; it may be of another job, or not finished"
            )
        weights = read_tensors(run, seal["files"], member.id, "weights.safetensors")
    return bend(member, prepared.dataset, prepared.schema, rows_of(member, prepared), weights=weights)


def _show_bend(found: Curvature, member: MemberSpec, *, as_json: bool = False) -> None:
    from ensemble_svc.health.bend import told

    if as_json:
        print_json({"curvature": _bend_data(found, member)})
        return
    for sentence in told(found, member.training.optimizer):
        console().print(sentence, highlight=False, markup=False)


def _bend_data(found: Curvature, member: MemberSpec) -> dict[str, object]:
    from ensemble_svc.health.bend import edge, told

    rule = member.training.optimizer
    return asdict(found) | {"kind": found.kind, "stable_up_to": edge(rule), "says": told(found, rule)}


def _as_data(found: Checkup) -> dict[str, object]:
    layers = [
        {
            "name": layer.name,
            "weight_norm": layer.weight,
            "gradient_norm": layer.gradient,
            "update_ratio": layer.update if layer.update != float("inf") else None,
            "units_alike": layer.alike,
            "activation": asdict(layer.activity) if layer.activity else None,
        }
        for layer in found.layers
    ]
    rest = {name: value for name, value in vars(found).items() if name != "layers"}
    return rest | {"layers": layers}


def _table(found: Checkup) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, title=Text(f"{found.member} before training", style="bold"))
    table.add_column("Layer", no_wrap=True)
    table.add_column("Activation", no_wrap=True)
    for head in ("Mean", "Std", "Flat", "Dead", "Gradient", "Step"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("Outputs", no_wrap=True)
    table.caption = "flat: saturated outputs; step: the first step's size over the weights'"
    for number, layer in enumerate(found.layers, 1):
        seen = layer.activity
        table.add_row(
            Text(f"{number} {layer.name.removesuffix('.linear').removesuffix('.conv')}"),
            seen.kind if seen else "",
            f"{seen.mean:.2g}" if seen else "",
            f"{seen.std:.2g}" if seen else "",
            _share(seen.saturated if seen else None),
            _share(seen.dead if seen else None),
            f"{layer.gradient:.2g}",
            f"{layer.update:.1e}",
            _sketch(seen) if seen else "",
        )
    return table


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _sketch(seen: Activity) -> str:
    """The histogram, a block for each bin."""
    most = max(seen.histogram) or 1
    return "".join(BLOCKS[round(count / most * (len(BLOCKS) - 1))] for count in seen.histogram)
