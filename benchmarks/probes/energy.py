"""The whole command on the twenty standard splits of UCI energy, five members each, from its start to its end."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.children import ChildFailed, run_command
from benchmarks.probes.measure import Measures, arguments, write


def measure(*, splits: int) -> Measures:
    """Wall seconds with each executor, and the error that the ensembles reach."""
    found: dict[str, tuple[str, float]] = {}
    for executor in ("ray", "local"):
        seconds, rmse = _command(executor, splits)
        found[f"command, {executor}"] = ("s", seconds)
        found[f"RMSE, {executor}"] = ("", rmse)
    return found


def _command(executor: str, splits: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        out = Path(folder) / "energy"
        words = ["train", "jobs/uci/energy.yaml", "--executor", executor, "--out", str(out)]
        command = [sys.executable, "-m", "ensemble_svc", *words, "--each", f"data.split.index=0:{splits}"]
        seconds, status = run_command(command, Path(folder) / "log")
        if status != 0:
            raise ChildFailed((Path(folder) / "log").read_text()[-300:])
        summary = json.loads((out / "each.json").read_text())["summary"]
        return seconds, summary["test"]["ensemble"]["rmse"]["mean"]


if __name__ == "__main__":
    (out,), tiny = arguments()
    write(measure(splits=2 if tiny else 20), out)
