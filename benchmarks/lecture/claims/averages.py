"""Averages: of the members' predictions, and of a member's weights along the way."""

from __future__ import annotations

from benchmarks.lecture.bench import Bench, by, mean_and_error, with_error
from benchmarks.lecture.claim import Claim, Found, Table
from benchmarks.lecture.plots import Plot

CLEAR = 2.0


def measure_ensemble(bench: Bench) -> Found:
    """The ensemble's gain over its mean member."""
    test = bench.run("ensemble").metrics()["test"]
    gain, members = test["gain"]["over_mean_member"]["accuracy"], test["members"]["mean"]["accuracy"]
    low, high = gain["low"] * 100, gain["high"] * 100
    curve = test["size_curve"]
    return Found(
        verdict="holds" if low > 0 and high >= 1 else "holds in part" if low > 0 else "does not hold",
        says=f"Ten members are right on {members:.1%} of the test rows on average, their ensemble on "
        f"{test['ensemble']['accuracy']:.1%}: "
        f"{gain['estimate'] * 100:.1f} points more (95 % interval {low:.1f} to {high:.1f}). The NLL falls "
        f"from {test['members']['mean']['nll']:.3f} to "
        f"{test['ensemble']['nll']:.3f}.",
        table=Table(
            ("members", "test accuracy, %", "test NLL"),
            [
                (f"{p['size']}", f"{p['accuracy']['mean'] * 100:.1f}", f"{p['nll']['mean']:.3f}")
                for p in curve
            ],
        ),
        plots=(
            Plot(
                "ensemble",
                "Test accuracy of ensembles of k of the ten members",
                {"mean over subsets": [p["accuracy"]["mean"] for p in curve]},
                "members",
                "test accuracy",
                xs=[p["size"] for p in curve],
            ),
        ),
    )


def measure_weights(bench: Bench) -> Found:
    """The average of the weights against the last ones."""
    groups = by(bench.members("weight_average"), "training.average")
    (none,), (ema,) = (key for key in groups)
    accuracy = {name: [m.accuracy for m in groups[name,]] for name in (none, ema)}
    nll = {name: [m.metrics["test"]["nll"] for m in groups[name,]] for name in (none, ema)}
    (before, error), (after, other) = mean_and_error(accuracy[none]), mean_and_error(accuracy[ema])
    gain, spread = after - before, (error**2 + other**2) ** 0.5
    return Found(
        verdict="holds" if gain > CLEAR * spread else "does not hold",
        says=f"The averaged weights are {gain * 100:+.2f} ± {spread * 100:.2f} points more accurate than "
        f"the last ones; the NLL goes from "
        f"{with_error(nll[none], places=3)} to {with_error(nll[ema], places=3)}.",
        table=Table(
            ("weights", "test accuracy, %", "test NLL"),
            [
                (name, with_error(accuracy[name], factor=100, places=2), with_error(nll[name], places=3))
                for name in (none, ema)
            ],
        ),
    )


ENSEMBLE = Claim(
    name="ensemble",
    title="An ensemble gains about two points",
    claim="Training several models apart and averaging what they predict gives about 2 % better accuracy.",
    how="ten members on 359 rows of digits, and the ensemble's accuracy minus the mean member's on 1,258 "
    "test rows, with the interval of a paired bootstrap over "
    "rows. An interval that holds 0 speaks against it; one below 1 point counts as in part.",
    jobs=("ensemble",),
    measure=measure_ensemble,
)
WEIGHTS = Claim(
    name="weight_average",
    title="A running average of the weights gives a small boost",
    claim="Keeping a moving average of the weights while training and testing with it gives a bit more "
    "(Polyak & Juditsky 1992).",
    how="sixteen members each with and without (SGD at a constant rate, batches of 16, decay 0.995); a "
    "difference of more than two standard errors counts.",
    jobs=("weight_average",),
    measure=measure_weights,
)
