"""Whether relu learns in fewer epochs than tanh and sigmoid."""

from __future__ import annotations

import math
import statistics

from benchmarks.lecture.bench import Bench, by, mean_curve
from benchmarks.lecture.claim import Claim, Found, Table, Verdict
from benchmarks.lecture.plots import Plot

LOSS = 0.05
LARGE = 3.0
"""Times as many epochs as relu that count as clearly more."""
NAMES = ("relu", "tanh", "sigmoid")


def measure(bench: Bench) -> Found:
    """Epochs to one training loss, each activation at the rate that suits it best."""
    groups = by(bench.members("activations"), "model.activation", "training.optimizer.lr")
    epochs = {key: statistics.median(m.epochs_to(LOSS) for m in some) for key, some in groups.items()}
    rates = sorted({lr for _, lr in groups})
    best = {name: min(rates, key=lambda lr: (epochs[name, lr], -lr)) for name in NAMES}
    needs = {name: epochs[name, best[name]] for name in NAMES}
    times = {name: needs[name] / needs["relu"] for name in ("tanh", "sigmoid")}
    same = _same_rate(epochs, rates)
    ratios = [times["tanh"], times["sigmoid"]]
    verdict: Verdict = (
        "holds" if min(ratios) >= LARGE else "holds in part" if max(ratios) > 1 else "does not hold"
    )
    return Found(
        verdict=verdict,
        says=f"Each at its best rate, relu needs {_word(needs['relu'])} epochs to a training loss of "
        f"{LOSS}, tanh "
        f"{_word(needs['tanh'])} ({_times(times['tanh'])}) and sigmoid {_word(needs['sigmoid'])} "
        f"({_times(times['sigmoid'])}); {same}",
        table=Table(
            ("activation", *(f"lr {lr:g}" for lr in rates)),
            [(name, *(_word(epochs[name, lr]) for lr in rates)) for name in NAMES],
        ),
        plots=(
            Plot(
                "activations",
                "Training loss, each activation at its best rate",
                {
                    f"{name}, lr {best[name]:g}": mean_curve(groups[name, best[name]], "train_loss")
                    for name in NAMES
                },
                "epoch",
                "training loss",
                log_y=True,
                guide=LOSS,
            ),
        ),
    )


def _same_rate(epochs: dict[tuple[object, ...], float], rates: list[float]) -> str:
    """How many times tanh's epochs are relu's where both are trained at one rate."""
    both = [
        epochs["tanh", lr] / epochs["relu", lr]
        for lr in rates
        if math.isfinite(epochs["relu", lr] + epochs["tanh", lr])
    ]
    if not both:
        return "at no common rate do both arrive."
    return f"at equal rates tanh needs {min(both):.1f} to {max(both):.1f} times relu's."


def _word(epochs: float) -> str:
    return f"{epochs:g}" if math.isfinite(epochs) else "never"


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times as many" if math.isfinite(ratio) else "–"


CLAIM = Claim(
    name="activations",
    title="Relu learns in fewer epochs than tanh and sigmoid",
    claim="A network of relus reaches a given training error in fewer epochs, about 6 times fewer than "
    "tanh (Krizhevsky et al. 2012, "
    "a convolutional network on CIFAR-10).",
    how=f"epochs until the training loss is below {LOSS}, median of 3 members, a network of two "
    f"convolutions and two dense "
    "layers on the digits, plain SGD, each activation at the best of five rates. Against it speaks a "
    "ratio of 1 or less for "
    f"both; one below {LARGE:g} counts as in part.",
    jobs=("activations",),
    measure=measure,
)
