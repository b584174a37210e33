"""What becomes of a signal in ten layers, by the size of the initial weights."""

from __future__ import annotations

from benchmarks.lecture.bench import Bench
from benchmarks.lecture.claim import Claim, Found, Table
from benchmarks.lecture.plots import Plot
from ensemble_svc.health.checkup import Checkup

JOBS = {
    "tanh_std_001": "tanh, std 0.01",
    "tanh_std_1": "tanh, std 1",
    "tanh_xavier": "tanh, xavier",
    "relu_xavier": "relu, xavier",
    "relu_he": "relu, he",
}
FADED, KEPT, FULL = 0.1, 0.3, 0.5


def measure(bench: Bench) -> Found:
    """The spread of each layer's outputs."""
    seen = {job: bench.checkup(job) for job in JOBS}
    spread = {
        job: [layer.activity.std for layer in found.layers if layer.activity] for job, found in seen.items()
    }
    left = {job: line[-1] / line[0] for job, line in spread.items()}
    flat = _saturated(seen["tanh_std_1"])
    holds = (
        left["tanh_std_001"] < FADED
        and flat > FULL
        and left["tanh_xavier"] > KEPT
        and left["relu_xavier"] < FADED
        and left["relu_he"] > KEPT
    )
    return Found(
        verdict="holds" if holds else "holds in part",
        says=f"From layer 1 to 10 tanh keeps {left['tanh_std_001']:.1g} of its spread at std 0.01 and "
        f"{left['tanh_xavier']:.2f} with xavier; at std 1 {flat:.0%} of its outputs are saturated; relu "
        f"keeps "
        f"{left['relu_xavier']:.2g} with xavier and {left['relu_he']:.2f} with he.",
        table=Table(
            (
                "network",
                "std behind layer 1",
                "behind layer 10",
                "saturated",
                "first loss (guessing 2.30)",
                "20 rows by heart",
            ),
            [_row(JOBS[job], spread[job], found) for job, found in seen.items()],
        ),
        plots=(
            Plot(
                "signal",
                "Standard deviation of the outputs by layer",
                {JOBS[job]: line for job, line in spread.items()},
                "layer",
                "std of the outputs",
                log_y=True,
            ),
        ),
    )


def _saturated(found: Checkup) -> float:
    shares = [layer.activity.saturated or 0.0 for layer in found.layers if layer.activity]
    return sum(shares) / len(shares)


def _row(name: str, spread: list[float], found: Checkup) -> tuple[str, ...]:
    is_tanh = name.startswith("tanh")
    learned = f"in {found.few_steps} steps" if found.learned else f"not in {found.few_steps} steps"
    flat = f"{_saturated(found):.0%}" if is_tanh else "–"
    return name, f"{spread[0]:.2g}", f"{spread[-1]:.2g}", flat, f"{found.loss:.3g}", learned


CLAIM = Claim(
    name="signal",
    title="Initial weights decide what reaches the last layer",
    claim="In ten tanh layers of 500 units, weights of standard deviation 0.01 let the activations go to "
    "0, and weights of 1 "
    "saturate them; Xavier's keep them. With relu Xavier's let them shrink, and He's keep them.",
    how="the standard deviation of each layer's outputs on 1,000 rows before training.",
    jobs=tuple(JOBS),
    measure=measure,
    verb="inspect",
)
