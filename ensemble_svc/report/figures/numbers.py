"""Regression: predictions against the truth, and whether the intervals cover what they claim.

Shapes: K members, N rows, T targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ensemble_svc.report.figure import Figure
from ensemble_svc.report.panel import Panel, Range, width_of
from ensemble_svc.report.text import clean, number

POINTS = 1500
"""Rows drawn at most, evenly spaced among all."""
TARGETS = 4
"""Targets drawn at most."""
LEVELS = np.linspace(0.05, 0.95, 19)

Array = npt.NDArray[Any]


def draw(
    mean_KNT: Array, log_variance_KNT: Array | None, target_NT: Array, targets: Sequence[str]
) -> list[Figure]:
    """Predicted against true for each target, then the coverage of the intervals."""
    mean_KNT, target_NT = mean_KNT.astype(np.float64), target_NT.astype(np.float64)
    names = [
        clean(targets[t], limit=40) if t < len(targets) else f"target {t}" for t in range(target_NT.shape[1])
    ]
    std_NT = None if log_variance_KNT is None else _mixture_std(mean_KNT, log_variance_KNT)
    width = width_of(len(names[:TARGETS]) + (std_NT is not None))
    figures = []
    for t, name in enumerate(names[:TARGETS]):
        std_N = None if std_NT is None else std_NT[:, t]
        figures.append(_scatter(mean_KNT[:, :, t].mean(0), std_N, target_NT[:, t], name, width))
    if log_variance_KNT is not None:
        figures.append(_coverage(mean_KNT, log_variance_KNT.astype(np.float64), target_NT, width))
    return figures


def _mixture_std(mean_KNT: Array, log_variance_KNT: Array) -> Array:
    within = np.exp(log_variance_KNT.astype(np.float64)).mean(0)
    return np.asarray(np.sqrt(within + mean_KNT.var(0)))


def _scatter(mean_N: Array, std_N: Array | None, target_N: Array, name: str, width: float) -> Figure:
    keep = np.unique(np.linspace(0, len(mean_N) - 1, min(POINTS, len(mean_N))).round().astype(int))
    both = Range.over([*mean_N[keep], *target_N[keep]])
    panel = Panel(
        both,
        both,
        label=f"Predicted against true {name}",
        x_label=f"true {name}",
        y_label=f"Predicted {name}",
        width=width,
        tall=True,
    )
    panel.line([both.low, both.high], [both.low, both.high], "guide")
    if std_N is not None and len(keep) <= 250:
        for row in keep:
            low, high = (panel.at(target_N[row], mean_N[row] + side * std_N[row]) for side in (-1, 1))
            panel.pen.line(low, high, "spread-line")
    panel.dots(target_N[keep], mean_N[keep], "point-dot", 2.6 if len(keep) <= 400 else 1.8)
    marks = (("point-dot", "a row"), ("guide", "predicted = true"))
    bars = (("spread-line", "± one standard deviation"),) if std_N is not None and len(keep) <= 250 else ()
    return Figure(
        f"Predicted against true {name}", panel.drawing.markup(), _explained(mean_N, target_N), marks + bars
    )


def _explained(mean_N: Array, target_N: Array) -> str:
    total = float(((target_N - target_N.mean()) ** 2).sum())
    if total == 0:
        return ""
    return f"R² = {number(1 - float(((target_N - mean_N) ** 2).sum()) / total, 3)} over {len(mean_N):,} rows."


def _coverage(mean_KNT: Array, log_variance_KNT: Array, target_NT: Array, width: float) -> Figure:
    levels_KNT = _normal_cdf((target_NT - mean_KNT) / np.exp(log_variance_KNT / 2))
    ensemble = _covered(levels_KNT.mean(0))
    panel = Panel(
        Range(0, 1, factor=100),
        Range(0, 1, factor=100),
        label="Coverage of prediction intervals",
        x_label="claimed coverage %",
        y_label="Rows inside %",
        width=width,
        tall=True,
    )
    panel.line([0, 1], [0, 1], "guide")
    for member in levels_KNT[:50] if len(levels_KNT) > 1 else ():
        panel.line(LEVELS, _covered(member), "member-line")
    panel.line(LEVELS, ensemble, "ensemble-line")
    panel.dots(LEVELS, ensemble, "ensemble-dot", 3)
    at_90 = float(np.interp(0.9, LEVELS, ensemble))
    slack = max(0.03, 2 * (0.9 * 0.1 / len(target_NT)) ** 0.5)
    verdict = "too wide" if at_90 > 0.9 + slack else "too narrow" if at_90 < 0.9 - slack else "as they should"
    held = f"Those that claim 90 % hold {number(100 * at_90, 1)} % of the rows: {verdict}."
    caption = f"Central intervals of the mixture. {held}"
    marks = (("ensemble-line", "ensemble"), ("member-line", "a member"), ("guide", "as claimed"))
    return Figure("Do the intervals cover what they claim?", panel.drawing.markup(), caption, marks)


def _normal_cdf(z: Array) -> Array:
    return np.asarray(torch.special.ndtr(torch.from_numpy(z)).numpy())


def _covered(level_NT: Array) -> Array:
    distance = np.sort(np.abs(level_NT - 0.5).ravel())
    return np.searchsorted(distance, LEVELS / 2, side="right") / max(1, distance.size)
