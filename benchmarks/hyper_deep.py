"""Is a hyper-deep ensemble better than the deep ensemble of the best configuration, at equal members?

Each seed splits the rows anew and searches ``jobs/hyper_deep.yaml``; then the best trial's configuration is trained
from as many seeds as the ensemble may have members. All are chosen on validation rows and measured on the same test
rows; the intervals are paired bootstraps over them.

Run: ``python -m benchmarks.hyper_deep [--seeds N] [--out FOLDER]``.

Shapes: K members, N rows, C classes.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ensemble_svc import pipeline
from ensemble_svc.aggregate.likelihood import log_likelihood
from ensemble_svc.aggregate.pools import LikelihoodPool, Pool
from ensemble_svc.evaluate.bootstrap import percentile_interval, resampled_means
from ensemble_svc.evaluate.contrast import contrast
from ensemble_svc.local import LocalExecutor
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import load_job
from ensemble_svc.store.run import Run

JOB = Path(__file__).parents[1] / "jobs" / "hyper_deep.yaml"
ROWS = 6_000
MEMBERS = 5
MOST_PICKS = 50
DEEP, GREEDY, HYPER_DEEP, BEST = (
    "deep ensemble of the best trial",
    "greedy over the trials",
    "greedy over trials and refits (hyper-deep)",
    "best trial alone",
)


class Ensemble(NamedTuple):
    """One ensemble's prediction of the test rows."""

    name: str
    log_probs_NC: Tensor
    num_members: int


class Compared(NamedTuple):
    """The ensembles of one seed."""

    rows: list[dict[str, Any]]
    """Of each: metrics, gain over the deep ensemble, seconds."""
    losses_EN: Tensor
    """The loss of each ensemble on each test row, in nats."""


def main() -> None:
    """Train what is missing, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hyper_deep", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("ENSEMBLE_DATA", "data")))
    parser.add_argument("--out", type=Path, default=Path("runs/hyper_deep"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", help="as ensemble-svc train takes it"
    )
    options = parser.parse_args()
    subset(options.data / "fashion_mnist.npz", options.data / "fashion_mnist_6000.npz")
    os.environ["ENSEMBLE_DATA"] = str(options.data.resolve())
    found = [compared(seed, options.out, options.overrides) for seed in range(options.seeds)]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "hyper_deep.json").write_text(json.dumps([one.rows for one in found], indent=1))
    print("\n".join(table(found)))


def subset(whole: Path, part: Path) -> None:
    """The first training images of the file in a drawn order, and all test images."""
    if part.exists():
        return
    with np.load(whole) as arrays:
        rows = np.random.default_rng(0).permutation(len(arrays["X_train"]))[:ROWS]
        train = {name: arrays[name][rows] for name in ("X_train", "y_train")}
        np.savez_compressed(part, **train, X_test=arrays["X_test"], y_test=arrays["y_test"])


def compared(seed: int, out: Path, overrides: Sequence[str]) -> Compared:
    """The ensembles of one seed, the deep ensemble first."""
    began = time.monotonic()
    job = load_job(JOB, [*overrides, f"seed={seed}"])
    search = _trained(job, out / f"search-{seed}")
    assert job.search is not None
    entries = search.manifest()["members"][: job.search.num_trials]
    best = min(entries, key=lambda entry: entry["metrics"]["validation"]["nll"])
    searched_s, began = time.monotonic() - began, time.monotonic()
    deep = _trained(_deep(seed, best["hyperparameters"], overrides), out / f"deep-{seed}")
    test, target = search.predictions("test")["log_probs"], search.predictions("test")["target"]
    validation = search.predictions("validation")
    likelihood_KN = log_likelihood({"log_probs": validation["log_probs"]}, validation["target"])
    ensembles = [
        _mixture(DEEP, deep.predictions("test")["log_probs"], range(MEMBERS)),
        _mixture(GREEDY, test, picked(LikelihoodPool(likelihood_KN[: len(entries)]))),
        _mixture(HYPER_DEEP, test, picked(LikelihoodPool(likelihood_KN))),
        _mixture(BEST, test, [best["index"]]),
    ]
    predictions = [{"log_probs": one.log_probs_NC} for one in ensembles]
    numbers = contrast("classification", predictions, target, spec=job.evaluate, seed=seed)
    seconds = {"search": searched_s, "deep": time.monotonic() - began}
    rows = [
        {"seed": seed, "ensemble": one.name, "members": one.num_members, "seconds": seconds, **found}
        for one, found in zip(ensembles, numbers, strict=True)
    ]
    losses = [-one.log_probs_NC.double().gather(1, target[:, None])[:, 0] for one in ensembles]
    return Compared(rows, torch.stack(losses))


def picked(pool: Pool) -> list[int]:
    """Forward selection with replacement until so many members are in it (Wenzel et al. 2020).

    Where it comes to no others in many picks, those that are in it are left out of the next ones.
    """
    picks: list[int] = []
    total, everyone = pool.empty(), range(pool.num_members)
    while len(set(picks)) < MEMBERS:
        among = [k for k in everyone if len(picks) < MOST_PICKS or k not in picks]
        scores = dict(zip(among, pool.trial(total, len(picks), among), strict=True))
        picks.append(min(among, key=scores.__getitem__))
        total = pool.add(total, picks[-1])
    return picks


def _trained(job: JobSpec, out: Path) -> Run:
    return pipeline.train(job, out=out, directory=JOB.parent, executor=LocalExecutor())


def _deep(seed: int, values: Mapping[str, Any], overrides: Sequence[str]) -> JobSpec:
    """The job of one configuration from several seeds."""
    own = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    deep = ["search=null", f"ensemble.members={MEMBERS}", "aggregate.select=all"]
    return load_job(JOB, [*overrides, f"seed={seed}", *deep, *own])


def _mixture(name: str, log_probs_KNC: Tensor, picks: Sequence[int]) -> Ensemble:
    """The mixture of some members, each as often as it is picked."""
    picked = log_probs_KNC[list(picks)].double()
    mixed_NC = picked.logsumexp(0) - torch.tensor(len(picks)).double().log()
    return Ensemble(name, mixed_NC.log_softmax(1).float(), len(set(picks)))


def table(found: Sequence[Compared]) -> Iterator[str]:
    """A row for each ensemble of each seed, and the means over seeds."""
    yield "| seed | ensemble | members | NLL | accuracy | ECE | NLL gained over the deep ensemble |"
    yield "|---|---|---|---|---|---|---|"
    for row in (row for one in found for row in one.rows):
        gain = row["gain"].get("nll")
        shown = "" if gain is None else _shown(gain["estimate"], gain["low"], gain["high"])
        yield f"| {row['seed']} | {row['ensemble']} | {row['members']} | {_numbers([row])} | {shown} |"
    losses_EN = torch.stack([one.losses_EN for one in found]).mean(0)
    for number, row in enumerate(found[0].rows):
        rows = [one.rows[number] for one in found]
        shown = _gained(losses_EN[0] - losses_EN[number]) if number else ""
        yield f"| all | {row['ensemble']} | | {_numbers(rows)} | {shown} |"


def _numbers(rows: Sequence[Mapping[str, Any]]) -> str:
    """NLL, accuracy and ECE, means over seeds."""
    nll, right, ece = (sum(row["metrics"][n] for row in rows) / len(rows) for n in ("nll", "accuracy", "ece"))
    return f"{nll:.4f} | {right:.2%} | {ece:.4f}"


def _gained(gain_N: Tensor) -> str:
    """The mean of what the rows gain, over seeds, with its interval over rows."""
    means_R = resampled_means([gain_N[:, None]], num_resamples=2000, seed=0)[:, 0, 0]
    return _shown(gain_N.mean().item(), *percentile_interval(means_R, 0.95))


def _shown(estimate: float, low: float, high: float) -> str:
    return f"{estimate:+.4f} [{low:+.4f}, {high:+.4f}]"


if __name__ == "__main__":
    main()
