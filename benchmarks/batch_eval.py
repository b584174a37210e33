"""Batch evaluation against a bare packed torch loop: ``python -m benchmarks.batch_eval [--rows N] [--repeats N]``.

Claim: ``evaluate RUN --data`` of 1,000,000 digit-sized rows by 16 MLP 64-128-128-10, the whole command, from a parquet
file to the printed table with intervals, takes at most 1 / 0.8 of the time of ``benchmarks.batch_loop``, a whole
process too. The two run in turn; ratios are of the times of one round. ``cpu`` ratios are of processor seconds, which
say the same where other processes share the machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits

from benchmarks.children import ROOT, ChildFailed, load_average, run_command
from benchmarks.machine import describe
from ensemble_svc import pipeline
from ensemble_svc.local import LocalExecutor
from ensemble_svc.spec.load import parse_job

MEMBERS, ROWS = 16, 1_000_000
TITLE = f"evaluate {ROWS:,} rows x {MEMBERS} MLP, the whole command, against a bare packed torch loop"
UNITS = {
    "ratio": "",
    "cpu_ratio": "",
    "ours_s": "s",
    "loop_s": "s",
    "ours_cpu_s": "s",
    "loop_cpu_s": "s",
    "rows_per_s": "rows/s",
}
AGREES = 1e-4
"""How far the loop's numbers may be from ours."""


def main(words: list[str] | None = None) -> None:
    """Make the run and the rows, then measure in turn and write ``batch_eval.json``."""
    options = _parser().parse_args(words)
    rows = 20_000 if options.tiny else options.rows
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        make(folder, rows)
        rounds = [_round(folder, number, options.repeats) for number in range(options.repeats)]
    measures = {key: {"unit": unit, "values": [one[key] for one in rounds]} for key, unit in UNITS.items()}
    for one in rounds:
        one["rows"] = rows
    result = {
        "kind": "probe",
        "name": "batch_eval",
        "title": TITLE,
        "tiny": options.tiny,
        "machine": describe(),
        "rounds": rounds,
        "measures": measures,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "batch_eval.json").write_text(json.dumps(result, indent=1) + "\n")
    for key, found in measures.items():
        print(f"{key}: median {statistics.median(found['values']):.4g} {found['unit']}")


def make(folder: Path, rows: int) -> None:
    """A run of 16 members, ``run``, and the rows to measure, ``rows.parquet``: digits with noise on their ink."""
    x, y = load_digits(return_X_y=True)
    _table(x, y).to_parquet(folder / "train.parquet", index=False)
    job = {
        "name": "batch_eval",
        "data": {
            "source": {"name": "parquet", "path": "train.parquet", "target": "digit"},
            "preprocess": ["standardize"],
        },
        "model": {"name": "mlp", "hidden": [128, 128]},
        "training": {"epochs": 5, "batch_size": 64},
        "ensemble": {"members": MEMBERS},
        "compute": {"executor": "local"},
    }
    pipeline.train(parse_job(job), out=folder / "run", directory=folder, executor=LocalExecutor())
    rng = np.random.default_rng(0)
    at = rng.integers(0, len(x), rows)
    noisy = np.where(x[at] > 0, (x[at] + rng.normal(0, 2, (rows, 64))).clip(0, 16), 0)
    _table(noisy, y[at]).to_parquet(folder / "rows.parquet", index=False, row_group_size=1 << 16)


def _table(x: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(x.astype(np.float32), columns=[f"p{i}" for i in range(64)]).assign(digit=y)


def _round(folder: Path, number: int, of: int) -> dict[str, Any]:
    """Both commands once, who is first by turns."""
    source = f"{{name: parquet, path: {folder / 'rows.parquet'}, target: digit}}"
    commands = {
        "ours": ["ensemble_svc", "evaluate", str(folder / "run"), "--data", source, "--json"],
        "loop": ["benchmarks.batch_loop", str(folder / "run"), str(folder / "rows.parquet")],
    }
    order = list(commands) if number % 2 else list(commands)[::-1]
    found: dict[str, Any] = {"load_average": load_average(), "order": order}
    said: dict[str, Mapping[str, float]] = {}
    for name in order:
        log, before = folder / f"{name}.log", _cpu_s()
        seconds, status = run_command([sys.executable, "-W", "ignore", "-m", *commands[name]], log)
        if status:
            raise ChildFailed(log.read_text())
        said[name] = json.loads(log.read_text())
        found |= {f"{name}_s": seconds, f"{name}_cpu_s": _cpu_s() - before}
    _check(said["ours"]["data"], said["loop"])  # type: ignore[arg-type]
    found["ratio"] = found["loop_s"] / found["ours_s"]
    found["cpu_ratio"] = found["loop_cpu_s"] / found["ours_cpu_s"]
    found["rows_per_s"] = said["loop"]["rows"] / found["ours_s"]
    print(f"round {number + 1}/{of}: ratio {found['ratio']:.2f}, of CPU {found['cpu_ratio']:.2f}", flush=True)
    return found


def _check(ours: Mapping[str, Any], loop: Mapping[str, float]) -> None:
    """Make sure that both have measured the same ensemble on the same rows."""
    for name in ("accuracy", "nll"):
        if abs(ours["ensemble"][name] - loop[name]) > AGREES:
            raise ChildFailed(f"{name}: {ours['ensemble'][name]} of ours, {loop[name]} of the loop")
    if ours["rows"] != loop["rows"]:
        raise ChildFailed(f"{ours['rows']} rows of ours, {loop['rows']} of the loop")


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batch_eval", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--tiny", action="store_true", help="a second's work, to see that all runs")
    return parser


if __name__ == "__main__":
    main()
