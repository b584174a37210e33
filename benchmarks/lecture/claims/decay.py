"""A falling rate against a constant one."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.lecture.bench import Bench, best_of, by, mean_and_error, mean_curve, with_error
from benchmarks.lecture.claim import Claim, Found, Table
from benchmarks.lecture.plots import Plot

CLEAR = 2.0
"""Standard errors that count as a difference."""


def measure(bench: Bench) -> Found:
    """The last training loss of each schedule from its best first rate."""
    cells = by(bench.members("decay"), "training.schedule", "training.optimizer.lr")
    names = list(dict.fromkeys(name for name, _ in cells))
    best = {
        name: best_of(
            {lr: some for (other, lr), some in cells.items() if other == name}, lambda m: m.last_loss
        )
        for name in names
    }
    losses = {name: [m.last_loss for m in cells[name, best[name]]] for name in names}
    last = {name: mean_and_error(some)[0] for name, some in losses.items()}
    falling = [name for name in names if name != "constant"]
    lower = [name for name in falling if clearly_lower(losses[name], losses["constant"])]
    lowest = min(falling, key=lambda name: last[name])
    return Found(
        verdict="holds" if len(lower) == len(falling) else "holds in part" if lower else "does not hold",
        says=f"Each from its best first rate, the last training loss is {last['constant']:.3g} with a "
        f"constant rate and clearly lower with "
        f"{len(lower)} of {len(falling)} falling ones, lowest with {lowest}: {last[lowest]:.3g}.",
        table=Table(
            ("schedule", "best first rate of five", "last training loss", "test accuracy, %"),
            [
                (
                    name,
                    f"{best[name]:g}",
                    with_error(losses[name], places=4),
                    with_error([m.accuracy for m in cells[name, best[name]]], factor=100),
                )
                for name in names
            ],
        ),
        plots=(
            Plot(
                "decay",
                "Training loss, each schedule from its best first rate",
                {
                    f"{name}, lr {best[name]:g}": mean_curve(cells[name, best[name]], "train_loss")
                    for name in names
                },
                "epoch",
                "training loss",
                log_y=True,
            ),
        ),
    )


def clearly_lower(some: Sequence[float], constant: Sequence[float]) -> bool:
    """Whether the mean is lower by more than chance among so few members would have it."""
    (mine, error), (other, other_error) = mean_and_error(some), mean_and_error(constant)
    return other - mine > CLEAR * (error**2 + other_error**2) ** 0.5


CLAIM = Claim(
    name="decay",
    title="A rate that falls ends lower than a constant one",
    claim="A large rate brings the loss down fast and a small one brings it far down; letting the rate "
    "fall gives both.",
    how="six schedules from five first rates, two members each, SGD with momentum 0.9 on batches of 16, "
    "inputs with noise so that the gradients "
    "stay noisy; each schedule at the first rate with the lowest last training loss. A "
    "difference of more than two standard errors counts.",
    jobs=("decay",),
    measure=measure,
)
