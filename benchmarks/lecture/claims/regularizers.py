"""Regularisation against none on few rows."""

from __future__ import annotations

import statistics

from benchmarks.lecture.bench import Bench, Trained, mean_and_error, mean_curve, with_error
from benchmarks.lecture.claim import Claim, Found, Table
from benchmarks.lecture.plots import Plot

KINDS = (
    "none",
    "dropout 0.5",
    "L2 0.01",
    "L1 0.001",
    "input noise 0.5",
    "shifts by a pixel",
    "early stopping",
)
"""In the order in which the job deals them."""
CLEAR = 2.0
"""Standard errors that count as a difference."""


def measure(bench: Bench) -> Found:
    """Accuracy and NLL on the test rows, by kind."""
    members = bench.members("regularizers")
    groups = {kind: members[number :: len(KINDS)] for number, kind in enumerate(KINDS)}
    gains = {kind: _gain(groups[kind], groups["none"], "nll", sign=-1) for kind in KINDS[1:]}
    points = {kind: _gain(groups[kind], groups["none"], "accuracy", sign=1) for kind in KINDS[1:]}
    better = [kind for kind in KINDS[1:] if gains[kind][0] > CLEAR * gains[kind][1]]
    right = [kind for kind in KINDS[1:] if points[kind][0] > CLEAR * points[kind][1]]
    rest = [kind for kind in KINDS[1:] if kind not in better]
    says = f"Against none, the test NLL is clearly lower with {_list(better)}, "
    says += f"and the accuracy clearly higher with {_list(right)}."
    if rest:
        says += f" Not lower in NLL: {_list(rest)}."
    return Found(
        verdict="holds" if not rest else "holds in part" if better else "does not hold",
        says=says,
        table=Table(
            ("regularisation", "last training loss", "test accuracy, %", "test NLL"),
            [
                (
                    kind,
                    f"{statistics.fmean(m.last_loss for m in some):.3g}",
                    with_error([m.accuracy for m in some], factor=100),
                    with_error([m.metrics["test"]["nll"] for m in some], places=3),
                )
                for kind, some in groups.items()
            ],
        ),
        plots=(
            Plot(
                "regularizers",
                "Validation NLL over the epochs, mean of eight members",
                {
                    kind: mean_curve(some, "val_nll")
                    for kind, some in groups.items()
                    if kind != "early stopping"
                },
                "epoch",
                "validation NLL",
                log_y=True,
            ),
        ),
    )


def _gain(some: list[Trained], none: list[Trained], metric: str, *, sign: int) -> tuple[float, float]:
    """How much better, with its standard error."""
    (mine, error), (other, other_error) = (
        mean_and_error([m.metrics["test"][metric] for m in group]) for group in (some, none)
    )
    return sign * (mine - other), (error**2 + other_error**2) ** 0.5


def _list(names: list[str]) -> str:
    return ", ".join(names) or "none of them"


CLAIM = Claim(
    name="regularizers",
    title="Regularisation helps where rows are few",
    claim="Dropout, L2, L1, noise, augmentation and early stopping keep a large network from learning few "
    "rows by heart, so that it does "
    "better on others.",
    how="eight members each on 144 rows of digits, two layers of 256 units, AdamW without decay, 150 "
    "epochs; differences of more than two standard "
    "errors count. The strengths were set once and not tuned.",
    jobs=("regularizers",),
    measure=measure,
)
