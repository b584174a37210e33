"""How the members differ and how each class fares, as rows of words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ensemble_svc.report.figure import Figure
from ensemble_svc.report.figures import pairs
from ensemble_svc.report.looks import look
from ensemble_svc.report.text import clean, is_number, number
from ensemble_svc.report.view import RunView

FACTS = {
    "disagreement": ("Pairs that say different classes", "share of the rows, mean over the pairs of members"),
    "distance": ("Squared difference of two members", "mean over rows, targets and pairs"),
    "q_statistic": (
        "Q statistic",
        "0: two members err independently; 1: on the same rows (mean over pairs)",
    ),
    "error_correlation": ("Correlation of errors", "mean over the pairs of members; 0 would be ideal"),
    "entropy": ("Doubt of the mixture", "mean entropy in nats"),
    "expected_entropy": ("of it what each member doubts", "mean entropy of the members in nats"),
    "mutual_information": ("of it disagreement", "mean mutual information in nats"),
    "total": ("Variance of the mixture", "mean over rows and targets, in their units squared"),
    "aleatoric": ("of it what each member says is noise", "mean of the members' variances"),
    "epistemic": ("of it disagreement", "mean variance of the members' means"),
}
PERCENT = ("disagreement",)


@dataclass(frozen=True)
class Portrait:
    """The section of one task."""

    task: str
    facts: tuple[tuple[str, str, str], ...]
    """(what, number, explanation)."""
    classes: tuple[tuple[str, str, str, str], ...]
    """(class, rows, accuracy, NLL), the hardest first."""
    figure: Figure | None = None
    """Member against member."""


def portraits(view: RunView) -> list[Portrait]:
    """One for each task that has anything to tell."""
    found = [
        Portrait(clean(task, limit=40), _facts(part.summary), _classes(part), pairs.draw(part))
        for task, part in view.parts.items()
    ]
    return [one for one in found if one.facts or one.classes or one.figure]


def _facts(summary: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    diversity: Mapping[str, Any] = summary.get("diversity") or {}
    rows = [
        (label, _shown(name, diversity[name]), note)
        for name, (label, note) in FACTS.items()
        if is_number(diversity.get(name))
    ]
    parts = diversity.get("ambiguity")
    if parts:
        words = f"{number(parts['members'])} − {number(parts['ambiguity'])} = {number(parts['ensemble'])}"
        rows.append(("Squared error: members − ambiguity = ensemble", words, "of the members' weighted mean"))
    return tuple(rows)


def _shown(name: str, value: float) -> str:
    return f"{100 * value:.1f} %" if name in PERCENT else number(value, 3 if abs(value) < 10 else None)


def _classes(view: RunView) -> tuple[tuple[str, str, str, str], ...]:
    each: Sequence[Mapping[str, Any]] = view.summary.get("classes") or ()
    accuracy, nll = look("accuracy"), look("nll")
    return tuple(
        (
            clean(view.classes[one["class"]] if one["class"] < len(view.classes) else one["class"], limit=60),
            f"{one['rows']:,}",
            accuracy.show(one["accuracy"], 1),
            nll.bare(one["nll"], 3),
        )
        for one in sorted(each, key=lambda one: (one["accuracy"], one["class"]))
    )
