"""Searching against plain Ray Tune: ``python -m benchmarks.search [--quick] [--only digits | trials] [--out DIR]``.

``digits``: jobs/search_digits.yaml, the whole command, against Ray Tune with Lightning and ASHA on the same
configurations, rows and epochs (contenders/tune_search.py). ``trials``: what a trial costs that trains nothing, three
rounds of our executor beside Tune's own reuse of processes, and then once each what takes minutes: Tune as it is, the
driver's memory and the time of a trial among 3,000 and 10,000 (probes/dispatch.py; about ten minutes on two quiet
cores). The results are written as those of ``benchmarks.run`` are.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.children import ROOT, ChildFailed, load_average, run_command, run_module
from benchmarks.machine import describe
from benchmarks.run import RESULTS, say
from ensemble_svc.planning import members_of, prepare
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import load_job
from ensemble_svc.spec.schedulers import Halving
from ensemble_svc.store.run import Run

JOB = ROOT / "jobs" / "search_digits.yaml"
TINY = ("search.trials=6", "training.epochs=6")
QUICK = ("search.trials=16", "training.epochs=12")
RESAMPLES = 2000
ROUNDS = 3
"""Of the trials that train nothing, where the command line says nothing."""
LARGE = [("plain", 100), ("packed", 1000), ("ours", 3000), ("ours", 10_000)]
"""Ways of ``probes/dispatch.py`` that are measured once; each ends well within ``children.LONGEST_S``."""

Values = Mapping[str, tuple[str, float]]
"""Measure → its unit and its value."""


def digits(overrides: tuple[str, ...]) -> Values:
    """One round of the search by each."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        job = load_job(JOB, overrides)
        _write_search(job, folder)
        ours_s, ours = _ours(overrides, folder, "ray")
        local_s, _ = _ours(overrides, folder, "local")
        found: dict[str, tuple[str, float]] = {
            "ours on Ray, whole command": ("s", ours_s),
            "ours in one process, whole command": ("s", local_s),
        }
        for title, flags in (("Tune, reuse_actors", ["--reuse-actors"]), ("Tune", [])):
            theirs_s, theirs, epochs = _theirs(folder, flags)
            low, high = _interval(ours - theirs)
            found |= {
                f"{title}, whole command": ("s", theirs_s),
                f"{title}, over ours on Ray": ("", theirs_s / ours_s),
                f"{title}, over ours in one process": ("", theirs_s / local_s),
                f"{title}, epochs of all trials": ("", epochs),
                f"{title}, best trial's validation NLL": ("", float(theirs.mean())),
                f"ours - {title}, low end of 95 %": ("", low),
                f"ours - {title}, high end of 95 %": ("", high),
            }
    low, high = _interval(ours)
    own = {
        "ours, best trial's validation NLL": ("", float(ours.mean())),
        "ours, its low end of 95 %": ("", low),
        "ours, its high end of 95 %": ("", high),
    }
    return found | own


def _write_search(job: JobSpec, folder: Path) -> None:
    """The job's rows, split and standardised as ours are, and its configurations."""
    prepared = prepare(job, ROOT)
    x = prepared.dataset.x.reshape(len(prepared.dataset), -1).astype(np.float32)
    train, validation = prepared.split.train, prepared.split.validation
    mean, scale = x[train].mean(0), x[train].std(0)
    x, y = (x - mean) / np.where(scale > 0, scale, 1), np.asarray(prepared.dataset.y, np.int64)
    parts = {"x": x[train], "y": y[train], "x_val": x[validation], "y_val": y[validation]}
    np.savez(folder / "rows.npz", **parts)
    assert job.search is not None
    assert isinstance(job.search.scheduler, Halving)
    trials = [
        {
            "lr": member.varied["training.optimizer.lr"],
            "weight_decay": member.varied["training.optimizer.weight_decay"],
            "dropout": member.varied["model.dropout"],
            "noise": member.varied["training.regularizers.0.std"],
        }
        for member in members_of(job, prepared)
    ]
    rule = {"factor": job.search.scheduler.factor, "min_epochs": job.search.scheduler.min_epochs}
    search = {"epochs": job.training.epochs, "batch": job.training.batch_size, "trials": trials, **rule}
    (folder / "search.json").write_text(json.dumps(search))


def _ours(overrides: tuple[str, ...], folder: Path, executor: str) -> tuple[float, np.ndarray]:
    """Seconds of the command, and the NLL of each validation row by the best trial."""
    words = [part for text in overrides for part in ("--set", text)]
    out = folder / executor
    words += ["--executor", executor, "--out", str(out)]
    command = [sys.executable, "-m", "ensemble_svc", "train", str(JOB), *words]
    seconds, status = run_command(command, folder / "log")
    if status:
        raise ChildFailed((folder / "log").read_text()[-300:])
    run = Run(out)
    members = [m for m in run.manifest()["members"] if m["status"] == "done"]
    best = min(members, key=lambda member: member["metrics"]["validation"]["nll"])
    log_probs_NC = run.tensors(best["id"], "predictions-validation.safetensors")["log_probs"].numpy()
    with np.load(folder / "rows.npz") as file:
        y_N = file["y_val"]
    return seconds, -log_probs_NC[np.arange(len(y_N)), y_N]


def _theirs(folder: Path, flags: list[str]) -> tuple[float, np.ndarray, int]:
    found = run_module("benchmarks.contenders.tune_search", [str(folder), *flags])
    return found["whole_s"], np.array(found["rows_nll"]), int(found["epochs"])


def _interval(rows_N: np.ndarray) -> tuple[float, float]:
    """Ends of the bootstrap's 95 % interval of the mean."""
    draws = np.random.default_rng(0).integers(0, len(rows_N), (RESAMPLES, len(rows_N)))
    low, high = np.quantile(rows_N[draws].mean(1), [0.025, 0.975])
    return float(low), float(high)


def trials(number: int) -> Values:
    """One round of trials that train nothing, by our executor and by Tune's own reuse of processes."""
    found = dispatched(("ours", number), ("reused", number))
    ours, reused = (found[f"{way}, training of {number:,}"][1] for way in ("ours", "reused"))
    return found | {"ours over Tune with reuse_actors": ("", ours / reused)}


def dispatched(*ways: tuple[str, int]) -> Values:
    """Seconds, milliseconds of a trial and the driver's memory of some ways, each with its number of trials."""
    found: dict[str, tuple[str, float]] = {}
    for way, count in ways:
        measures = run_module("benchmarks.probes.dispatch", [way, str(count)])["measures"]
        for name in ("training", "each trial", "peak"):
            found[f"{way}, {name} of {count:,}"] = (measures[name]["unit"], measures[name]["value"])
    return found


def repeated(
    name: str,
    title: str,
    measure: Callable[[], Values],
    *,
    repeats: int,
    tiny: bool,
    once: Callable[[], Values] = dict,
) -> dict[str, Any]:
    """Rounds of a measurement as plain data.

    Args:
        once: what is measured after them, a single time.
    """
    measures: dict[str, dict[str, Any]] = {}
    rounds = []
    for number in range(1, repeats + 1):
        rounds.append({"load_average": load_average()})
        for key, (unit, value) in measure().items():
            measures.setdefault(key, {"unit": unit, "values": []})["values"].append(value)
        for key, entry in measures.items():
            say(f"{name} {number}/{repeats}: {key} {entry['values'][-1]:.4g} {entry['unit']}".rstrip())
    for key, (unit, value) in once().items():
        measures[key] = {"unit": unit, "values": [value]}
        say(f"{name}: {key} {value:.4g} {unit}".rstrip())
    for key, entry in measures.items():
        if len(entry["values"]) > 1:
            say(
                f"{name}: median of {len(entry['values'])}: {key} {median(entry['values']):.4g} {entry['unit']}"
            )
    facts = {"kind": "probe", "name": name, "title": title, "tiny": tiny, "machine": describe()}
    return facts | {"rounds": rounds, "measures": measures}


def main(words: list[str] | None = None) -> None:
    """Measure what the command line asks for."""
    options = _parser().parse_args(words)
    small = TINY if options.tiny else QUICK if options.quick else ()
    count = 8 if options.tiny else 300 if options.quick else 1000
    others = [("packed", 8)] if options.tiny else [("packed", 100)] if options.quick else LARGE
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "digits": lambda: repeated(
            "search_digits",
            " ".join(["search of the digits by ours, and by Ray Tune, Lightning and ASHA", *small]),
            lambda: digits(small),
            repeats=options.repeats or 1,
            tiny=options.tiny,
        ),
        "trials": lambda: repeated(
            "search_trials",
            "trials that train nothing",
            lambda: trials(count),
            repeats=options.repeats or (ROUNDS if not small else 1),
            tiny=options.tiny,
            once=lambda: dispatched(*others),
        ),
    }
    out = options.out or (RESULTS / "quick" if small else RESULTS)
    out.mkdir(parents=True, exist_ok=True)
    for part, action in parts.items():
        if options.only in (None, part):
            result = action()
            (out / f"{result['name']}.json").write_text(json.dumps(result, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="16 configurations, 300 trials (some minutes)")
    parser.add_argument("--tiny", action="store_true", help="sizes of seconds, to see that all runs")
    parser.add_argument("--only", choices=("digits", "trials"))
    parser.add_argument(
        "--repeats", type=int, help=f"rounds; 1 by default, {ROUNDS} of trials that train nothing"
    )
    parser.add_argument("--out", type=Path, help="folder of the results; by default benchmarks/results")
    return parser


if __name__ == "__main__":
    main()
