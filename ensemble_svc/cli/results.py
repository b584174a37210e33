"""A finished run on the terminal: the answer first, then the numbers, then where to look."""

from __future__ import annotations

from rich.text import Text

from ensemble_svc.cli.options import console, print_json
from ensemble_svc.cli.roster import members_table
from ensemble_svc.cli.tables import metrics_table, verdict
from ensemble_svc.report.decision import decided
from ensemble_svc.report.findings import told
from ensemble_svc.report.prospect import prospects
from ensemble_svc.store.run import Run


def show_run(run: Run, *, as_json: bool = False) -> None:
    """Print the run's metrics, as tables or as JSON."""
    metrics, manifest = run.metrics(), run.manifest()
    if as_json:
        print_json({"run": str(run.path), "ensemble": manifest["ensemble"], "metrics": metrics})
        return
    out = console()
    out.print(members_table(manifest, limit=20))
    out.print(metrics_table(metrics))
    for finding in told(manifest["members"]):
        out.print(f"• {finding}", style="yellow", highlight=False, markup=False)
    for warning in manifest["warnings"]:
        out.print(Text.assemble(("warning: ", "yellow"), warning))
    out.print(verdict(metrics, manifest), style="bold", highlight=False)
    for sentence in (*decided(manifest, metrics), *prospects(manifest, metrics)):
        out.print(sentence, highlight=False, markup=False)
    out.print(f"report: {run.path / 'report.html'}", highlight=False, soft_wrap=True)
