"""How many distinct rows a bootstrap sample has."""

from __future__ import annotations

import io
import math
import statistics

import numpy as np

from benchmarks.lecture.bench import Bench
from benchmarks.lecture.claim import Claim, Found, Table
from ensemble_svc.store.atomic import read_verified


def measure(bench: Bench) -> Found:
    """The share of the training rows that each member has seen."""
    run = bench.run("bagging")
    manifest = run.manifest()
    num_rows = manifest["rows"]["train"]
    shares = []
    for entry in manifest["members"]:
        name = f"members/{entry['id']}/resample.npy"
        rows = np.load(io.BytesIO(read_verified(run.path / name, entry["files"][name])))
        shares.append(len(np.unique(rows)) / num_rows)
    mean, expected = statistics.fmean(shares), 1 - (1 - 1 / num_rows) ** num_rows
    error = statistics.stdev(shares) / len(shares) ** 0.5
    gain = run.metrics()["test"]["gain"]["over_mean_member"]["accuracy"]
    return Found(
        verdict="holds" if abs(mean - expected) < 4 * error else "does not hold",
        says=f"{len(shares)} members have seen {mean:.2%} ± {error:.2%} of the {num_rows:,} rows; 1 − 1/e "
        f"is {1 - math.exp(-1):.2%}. Their average is "
        f"{gain['estimate'] * 100:.1f} points more accurate than the mean member.",
        table=Table(
            ("rows seen", "share"),
            [
                ("mean", f"{mean:.2%}"),
                ("least", f"{min(shares):.2%}"),
                ("most", f"{max(shares):.2%}"),
                ("expected", f"{expected:.2%}"),
            ],
        ),
    )


CLAIM = Claim(
    name="bagging",
    title="A bootstrap sample leaves a member about 63.2 % of the rows",
    claim="Drawing n of n rows with replacement leaves out each row with the probability (1 − 1/n)^n, "
    "about 36.8 %.",
    how="the distinct rows of each member's bag, as the run folder keeps them; four standard errors from "
    "the expectation would speak against it.",
    jobs=("bagging",),
    measure=measure,
)
