"""Measure: ``python -m benchmarks.run [--full] [--only WORK …] [--contenders NAME …] [--repeats N] [--out DIR]``.

One process at a time, the contenders in turn, so run it on a machine that does nothing else. Each contest and
each probe leaves one JSON file; ``python -m benchmarks.table DIR`` prints them as Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import contest, table
from benchmarks.children import ROOT, ChildFailed, load_average, run_module
from benchmarks.data import MissingData, check, data_folder
from benchmarks.machine import describe
from benchmarks.probes import PROBES
from benchmarks.selection import Contest, Selection, select
from benchmarks.work import WORKS

RESULTS = ROOT / "benchmarks" / "results"


def main(words: list[str] | None = None) -> None:
    """Run what the command line asks for, then print the tables."""
    options = _parser().parse_args(words)
    try:
        selection = select(full=options.full, only=options.only, contenders=options.contenders)
    except ValueError as fault:
        raise SystemExit(str(fault)) from fault
    out = options.out or (RESULTS if options.full else RESULTS / "quick")
    began = time.monotonic()
    say(f"load average {load_average()} on {os.cpu_count()} cores; a quiet machine has about 0")
    measure(selection, out, repeats=options.repeats, tiny=options.tiny)
    say(f"{time.monotonic() - began:.0f} s in all")
    print(table.markdown(table.read(out)))


def measure(selection: Selection, out: Path, *, repeats: int, tiny: bool) -> None:
    """Hold the contests, then run the probes; a part whose data are missing is left out and named."""
    for one in selection.contests:
        _keep(one.work, out, partial(_contest, one, repeats=repeats, tiny=tiny))
    for name in selection.probes:
        _keep(name, out, partial(probe, name, repeats=repeats, tiny=tiny))


def _contest(one: Contest, *, repeats: int, tiny: bool) -> dict[str, Any]:
    check(WORKS[one.work])
    return contest.hold(one.work, one.contenders, repeats=repeats, tiny=tiny, say=say)


def probe(name: str, *, repeats: int, tiny: bool) -> dict[str, Any]:
    """A probe's result as plain data, one fresh process per round."""
    chosen = PROBES[name]
    if chosen.needs_data:
        data_folder()
    measures: dict[str, dict[str, Any]] = {}
    rounds = []
    for r in range(repeats):
        rounds.append({"load_average": load_average()})
        words = [*chosen.arguments, *(["--tiny"] if tiny else [])]
        for measure_name, found in run_module(f"benchmarks.probes.{chosen.module}", words)[
            "measures"
        ].items():
            entry = measures.setdefault(measure_name, {"unit": found["unit"], "values": []})
            entry["values"].append(found["value"])
        say(f"{name} {r + 1}/{repeats}: {_brief(measures)}")
    return {
        "kind": "probe",
        "name": name,
        "title": chosen.title,
        "tiny": tiny,
        "machine": describe(),
        "rounds": rounds,
        "measures": measures,
    }


def say(text: str) -> None:
    """One line of progress."""
    print(text, flush=True)


def _keep(name: str, out: Path, action: Callable[[], dict[str, Any]]) -> None:
    """Write an action's result to ``out``, or say why there is none."""
    try:
        result = action()
    except (MissingData, ChildFailed) as fault:
        say(f"{name}: not measured: {fault}")
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def _brief(measures: dict[str, dict[str, Any]]) -> str:
    return ", ".join(
        f"{name} {entry['values'][-1]:.3g} {entry['unit']}".strip() for name, entry in measures.items()
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.split("\n\n")[0])
    parser.add_argument("--full", action="store_true", help="every contender and every probe (an hour)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="works and probes to measure")
    parser.add_argument("--contenders", nargs="+", default=[], metavar="NAME", help="who takes part")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder of the results; by default benchmarks/results")
    parser.add_argument("--tiny", action="store_true", help="works of a second, to see that all runs")
    return parser


if __name__ == "__main__":
    main()
