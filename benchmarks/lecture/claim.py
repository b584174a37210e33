"""A claim, and what was found when it was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.lecture.bench import Bench
from benchmarks.lecture.plots import Plot

Verdict = Literal["holds", "holds in part", "does not hold"]


@dataclass(frozen=True)
class Table:
    """Rows of words under heads."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Found:
    """What the measurement says of a claim."""

    verdict: Verdict
    says: str
    """The answer with its numbers, a sentence or two."""
    table: Table | None = None
    plots: tuple[Plot, ...] = ()


@dataclass(frozen=True)
class Claim:
    """What is said to be so, the jobs that show it, and how it is read off them."""

    name: str
    title: str
    claim: str
    """What the lecture says."""
    how: str
    """How it is measured, and what would speak against it."""
    jobs: tuple[str, ...]
    """Files of ``jobs/lecture`` without their ending."""
    measure: Callable[[Bench], Found]
    verb: Literal["train", "inspect"] = "train"
    """The verb of ``ensemble-svc`` that a reader gives for each job."""
