"""A falling rate against a constant one."""

from __future__ import annotations

import statistics

from benchmarks.lecture.bench import Bench, best_of, by, mean_curve, with_error
from benchmarks.lecture.claim import Claim, Found, Table
from benchmarks.lecture.plots import Plot


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
    last = {name: statistics.fmean(m.last_loss for m in cells[name, best[name]]) for name in names}
    falling = [name for name in names if name != "constant"]
    lower = [name for name in falling if last[name] < last["constant"]]
    lowest = min(falling, key=lambda name: last[name])
    return Found(
        verdict="holds" if len(lower) == len(falling) else "holds in part" if lower else "does not hold",
        says=f"Each from its best first rate, the last training loss is {last['constant']:.3g} with a "
        f"constant rate and lower with "
        f"{len(lower)} of {len(falling)} falling ones, lowest with {lowest}: {last[lowest]:.3g}.",
        table=Table(
            ("schedule", "best first rate of five", "last training loss", "test accuracy, %"),
            [
                (
                    name,
                    f"{best[name]:g}",
                    f"{last[name]:.3g}",
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


CLAIM = Claim(
    name="decay",
    title="A rate that falls ends lower than a constant one",
    claim="A large rate brings the loss down fast and a small one brings it far down; letting the rate "
    "fall gives both.",
    how="six schedules from five first rates, two members each, SGD with momentum 0.9 on batches of 16, "
    "inputs with noise so that the gradients "
    "stay noisy; each schedule at the first rate with the lowest last training loss.",
    jobs=("decay",),
    measure=measure,
)
