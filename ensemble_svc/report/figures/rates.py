"""What the search of the learning rate found, where the job asked for one."""

from __future__ import annotations

from ensemble_svc.report.figure import Figure, Numbers
from ensemble_svc.report.panel import Panel, Range
from ensemble_svc.report.text import is_number, number
from ensemble_svc.report.view import RunView


def draw(view: RunView) -> list[Figure]:
    """Loss after a few steps against the rate; none for a job with a rate of its own."""
    found = view.rates
    trials = [
        t for t in found.get("trials", ()) if is_number(t.get("loss")) and t["loss"] > 0 and t["lr"] > 0
    ]
    if len(trials) < 2:
        return []
    rates, losses = [t["lr"] for t in trials], [t["loss"] for t in trials]
    panel = Panel(
        Range(min(rates) / 1.5, max(rates) * 1.5, log=True),
        Range(min(losses) / 1.2, max(losses) * 1.2, log=True),
        label="Loss after a few steps against the learning rate",
        x_label="learning rate",
        y_label="loss",
    )
    good = [t for t in trials if not t["diverged"]]
    panel.line([t["lr"] for t in good], [t["loss"] for t in good], "ensemble-line")
    panel.dots([t["lr"] for t in good], [t["loss"] for t in good], "ensemble-dot", 3)
    for trial in trials:
        if trial["diverged"]:
            panel.pen.cross(
                panel.at(trial["lr"], trial["loss"]), 4, "lost-line", f"{trial['lr']:.3g}: diverges"
            )
    taken = found["suggested"]["halving"]
    panel.line([taken] * 2, [min(losses) / 1.2, max(losses) * 1.2], "guide")
    caption = (
        f"{found['steps']} steps at each of {len(found['trials'])} rates, as one pack. The halving recipe's rate, "
        f"{taken:.3g}, is taken (dashed); the lowest loss is at {found['suggested']['range_test']:.3g}."
    )
    legend = (("ensemble-line", "loss of the last steps"), ("lost-line", "diverges"))
    rows = [(f"{t['lr']:.3g}", number(t["loss"]), "yes" if t["diverged"] else "no") for t in trials]
    told = Numbers.of(("rate", "loss", "diverges"), rows, spread=True)
    return [Figure("Learning rate found", panel.drawing.markup(), caption, legend, numbers=told)]
