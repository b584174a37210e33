"""A finished run on the terminal: the answer first, then the numbers, then where to look."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from ensemble_svc.cli.options import print_json
from ensemble_svc.cli.tables import members_table, metrics_table, verdict
from ensemble_svc.store.run import Run


def show_run(run: Run, *, as_json: bool = False) -> None:
    """Print the run's metrics, as tables or as JSON."""
    metrics, manifest = run.metrics(), run.manifest()
    if as_json:
        print_json({"run": str(run.path), "ensemble": manifest["ensemble"], "metrics": metrics})
        return
    console = Console()
    console.print(members_table(manifest, limit=20))
    console.print(metrics_table(metrics))
    for warning in manifest["warnings"]:
        console.print(Text.assemble(("warning: ", "yellow"), warning))
    console.print(verdict(metrics, manifest), style="bold", highlight=False)
    console.print(f"report: {run.path / 'report.html'}", highlight=False, soft_wrap=True)
