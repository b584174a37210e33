"""Whether batch norm allows higher rates and cares less about the initial weights."""

from __future__ import annotations

from benchmarks.lecture.bench import Bench, by
from benchmarks.lecture.claim import Claim, Found, Table

LEARNED = 0.9
Grid = dict[tuple[str, float], float]


def measure(bench: Bench) -> Found:
    """The share of rates and initial weights at which a network learns."""
    cells = by(bench.members("batch_norm"), "model.norm", "model.init", "training.optimizer.lr")
    grids: dict[str, Grid] = {"none": {}, "batch": {}}
    for (norm, init, lr), some in cells.items():
        grids[norm][init, lr] = some[0].accuracy
    rates = sorted({lr for _, lr in grids["none"]})
    inits = list(dict.fromkeys(init for init, _ in grids["none"]))
    top = {
        norm: max((lr for (_, lr), a in grid.items() if a >= LEARNED), default=0.0)
        for norm, grid in grids.items()
    }
    share = {norm: sum(a >= LEARNED for a in grid.values()) / len(grid) for norm, grid in grids.items()}
    width = {
        norm: max(sum(grid[init, lr] >= LEARNED for init in inits) for lr in rates)
        for norm, grid in grids.items()
    }
    higher, wider = top["batch"] > top["none"], width["batch"] > width["none"]
    return Found(
        verdict="holds" if higher and wider else "holds in part" if higher or wider else "does not hold",
        says=f"With batch norm {share['batch']:.0%} of the {len(grids['none'])} pairs of rate and initial "
        f"weights end above "
        f"{LEARNED:.0%} accuracy, without {share['none']:.0%}. The highest rate at which some network "
        f"learns is "
        f"{top['batch']:g} against {top['none']:g}; at its best rate {width['batch']} of {len(inits)} "
        f"initial weights "
        f"work, against {width['none']}.",
        table=Table(
            ("test accuracy, %", *(f"lr {lr:g}" for lr in rates)),
            [
                (f"{norm}, {init}", *(_cell(grid[init, lr]) for lr in rates))
                for norm, grid in grids.items()
                for init in inits
            ],
        ),
    )


def _cell(accuracy: float) -> str:
    if not accuracy:
        return "diverged"
    return f"**{accuracy:.0%}**" if accuracy >= LEARNED else f"{accuracy:.0%}"


CLAIM = Claim(
    name="batch_norm",
    title="Batch norm allows higher rates and depends less on the initial weights",
    claim="A network with batch norm can be trained at higher learning rates and depends less on its "
    "initial weights.",
    how="test accuracy over a grid of seven rates and five kinds of initial weights, one member each, "
    "four layers of 100 relus; the "
    "grid of each norm is one pack. In bold: above 90 %. The best rate is the one at which most initial "
    "weights work, as read off these cells.",
    jobs=("batch_norm",),
    measure=measure,
)
