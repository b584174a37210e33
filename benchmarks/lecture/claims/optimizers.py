"""The update rules on one task, each at its best rate."""

from __future__ import annotations

from typing import Any

from benchmarks.lecture.bench import Bench, Trained
from benchmarks.lecture.claim import Claim, Found, Table
from benchmarks.lecture.plots import Plot

LOSS = 0.05


def measure(bench: Bench) -> Found:
    """The training loss of each rule at its best rate."""
    groups: dict[str, list[Trained]] = {}
    for member in bench.members("optimizers"):
        groups.setdefault(_name(member.varied["training.optimizer"]), []).append(member)
    best = {name: min(some, key=lambda m: (m.epochs_to(LOSS), m.last_loss)) for name, some in groups.items()}
    ranked = sorted(best, key=lambda name: best[name].epochs_to(LOSS))
    plain = best["sgd"].epochs_to(LOSS)
    faster = [name for name in best if name != "sgd" and best[name].epochs_to(LOSS) < plain]
    return Found(
        verdict="holds" if len(faster) == len(best) - 1 else "holds in part" if faster else "does not hold",
        says=f"To a training loss of {LOSS}, each at its best rate, in epochs: "
        + ", ".join(f"{name} {best[name].epochs_to(LOSS):g}" for name in ranked)
        + f". {len(faster)} of {len(best) - 1} are faster than plain SGD.",
        table=Table(
            (
                "rule",
                "best rate of seven",
                f"epochs to {LOSS}",
                "last training loss",
                "test accuracy, %",
                "rates that end below 0.5",
            ),
            [
                (
                    name,
                    f"{member.varied['training.optimizer']['lr']:g}",
                    f"{member.epochs_to(LOSS):g}",
                    f"{member.last_loss:.2g}",
                    f"{member.accuracy:.1%}".removesuffix("%"),
                    f"{sum(other.last_loss < 0.5 for other in groups[name])} of {len(groups[name])}",
                )
                for name, member in best.items()
            ],
        ),
        plots=(
            Plot(
                "optimizers",
                "Training loss, each rule at its best rate",
                {
                    f"{name}, lr {m.varied['training.optimizer']['lr']:g}": m.history["train_loss"]
                    for name, m in best.items()
                },
                "epoch",
                "training loss",
                log_y=True,
            ),
        ),
    )


def _name(rule: dict[str, Any]) -> str:
    extra = "nesterov" if rule.get("nesterov") else "momentum" if rule.get("momentum") else ""
    return extra or str(rule["name"])


CLAIM = Claim(
    name="optimizers",
    title="Momentum and adaptive rates are faster than plain SGD",
    claim="SGD with momentum, Nesterov's momentum, AdaGrad, RMSProp, Adam and AdamW bring the loss down "
    "in fewer steps than plain SGD.",
    how=f"epochs to a training loss of {LOSS}, five layers of 64 units on the digits, batches of 256, a "
    f"constant rate: of seven "
    "rates for each rule, one packed search each, the one that gets there first. One run each: a "
    "difference of an epoch says nothing.",
    jobs=("optimizers",),
    measure=measure,
)
