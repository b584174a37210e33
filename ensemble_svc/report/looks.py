"""How each metric is named, scaled and ordered for a reader.

What a metric *is* stands in the evaluation's catalogue; a test holds the two together. Light: the
terminal uses it too, so nothing here loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ensemble_svc.report.text import clean, decimals, is_number, number


@dataclass(frozen=True)
class Look:
    """The face of one metric."""

    name: str
    label: str
    higher_is_better: bool = False
    factor: float = 1.0
    """Shown value = factor * stored value."""
    unit: str = ""
    gain_unit: str = ""
    doc: str = ""
    span: tuple[float, float] = (-math.inf, math.inf)
    """Smallest and largest value there can be."""

    def show(self, stored: Any, places: int | None = None) -> str:
        """The value with its unit."""
        text = self.bare(stored, places)
        return f"{text} {self.unit}" if self.unit and is_number(stored) else text

    def bare(self, stored: Any, places: int | None = None, *, signed: bool = False) -> str:
        """The value without its unit."""
        scaled = stored * self.factor if isinstance(stored, float | int) else None
        return number(scaled, places, signed=signed)

    def gained(self, amount: str) -> str:
        """The unit of a gain that is shown as ``amount``: ``1 point``, ``1.3 points``; empty where it has none."""
        return self.gain_unit.removesuffix("s") if amount.lstrip("+−") == "1" else self.gain_unit

    def places(self, *spreads: Any) -> int:
        """Decimals for this metric when its values scatter by the smallest positive of ``spreads``."""
        known = [abs(s) * self.factor for s in spreads if is_number(s) and abs(s) > 1e-12]
        return decimals(min(known)) if known else (1 if self.unit == "%" else 3)


def _percent(name: str, label: str, doc: str, *, higher: bool) -> Look:
    return Look(name, label, higher, 100.0, "%", "points", doc, (0.0, 1.0))


LOOKS: Mapping[str, Look] = {
    look.name: look
    for look in (
        _percent("accuracy", "Accuracy", "share of rows whose most probable class is right", higher=True),
        Look("rmse", "RMSE", doc="root of the mean squared error, in the target's own units"),
        Look("nll", "NLL", doc="mean negative log likelihood of the true value, in nats"),
        Look("brier", "Brier", doc="mean squared distance between the probabilities and the true class"),
        _percent("ece", "ECE", "mean distance between confidence and accuracy over bins", higher=False),
        Look("mae", "MAE", doc="mean absolute error, in the target's own units"),
        Look("nll_gaussian", "NLL (Gaussian)", doc="NLL of the one Gaussian with the mixture's moments"),
        _percent("top5", "Top 5", "share of rows whose true class is among the five likeliest", higher=True),
        _percent("ece_adaptive", "ECE (adaptive)", "ECE over bins of equally many rows", higher=False),
        _percent("ece_classwise", "ECE (classwise)", "mean ECE of each class's probability", higher=False),
        _percent("ece_smooth", "ECE (smooth)", "ECE smoothed in place of bins", higher=False),
        _percent("aurc", "AURC", "mean error rate over every share of the surest rows", higher=False),
        _percent(
            "excess_aurc", "Excess AURC", "AURC above that of doubting the wrong rows alone", higher=False
        ),
        Look(
            "brier_reliability",
            "Brier reliability",
            doc="part of the Brier score that calibration could remove",
        ),
        Look("brier_resolution", "Brier resolution", True, doc="part that telling the rows apart took away"),
        Look(
            "crps", "CRPS", doc="distance of the predicted distribution from the truth, in the target's units"
        ),
        Look("pinball", "Pinball", doc="pinball loss of the 5 % and 95 % quantiles, in the target's units"),
        Look("width90", "Width (90 %)", doc="mean width of the central 90 % interval, in the target's units"),
        _percent("coverage_gap", "Coverage gap", "distance of the coverage from 90 %", higher=False),
    )
}

HEADLINE = ("accuracy", "rmse", "nll")
"""The metrics that answer whether the ensemble was worth it; a task has two of the three."""


def look(name: str) -> Look:
    """The face of any metric; one that is not known is shown as it is, lower taken as better.

    ``<task>/<metric>`` is that of the metric, named after its task.
    """
    task, _, metric = name.rpartition("/")
    if task and metric in LOOKS:
        return replace(LOOKS[metric], name=name, label=f"{clean(task, limit=40)} {LOOKS[metric].label}")
    return LOOKS.get(name) or Look(name, clean(name, limit=40))


def ordered(names: Iterable[str]) -> list[str]:
    """Metrics in the order of this page; unknown ones last, by name."""
    rank = {name: position for position, name in enumerate(LOOKS)}
    return sorted(set(names), key=lambda name: (rank.get(name, len(rank)), name))


def headline(names: Iterable[str]) -> list[str]:
    """At most two metrics to speak of first; of several tasks (``<task>/<metric>``) of each."""
    each: dict[str, list[str]] = {}
    for name in names:
        task, _, metric = name.rpartition("/")
        each.setdefault(task, []).append(metric)
    if each.keys() - {""}:
        return [f"{task}/{name}" for task, own in each.items() if task for name in headline(own)]
    known = ordered(each.get("", ()))
    return ([name for name in known if name in HEADLINE] or known)[:2]
