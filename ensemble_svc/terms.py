"""What is asked of a run's ensemble, and what every piece of rows is measured with."""

from __future__ import annotations

from dataclasses import dataclass

from ensemble_svc.familiar import Own
from ensemble_svc.predictor import Ensemble
from ensemble_svc.spec.job import JobSpec

HELD_ROWS, HELD_NUMBERS = 20_000, 1 << 24
"""Rows, and numbers that the members say of them, up to which all are held."""


@dataclass(frozen=True)
class Wish:
    """What is asked of a run."""

    data: str | None = None
    """A labelled source, as in a job; None for the run's own test rows."""
    ood: tuple[str, ...] = ()
    """Paths or sources of rows from elsewhere."""
    shift: bool = False
    """Whether to measure on worsened images too."""
    slices: tuple[str, ...] = ()
    """Columns by whose values to measure."""
    strict: bool = False
    """Stop at the first file that cannot be read."""
    held: int = HELD_ROWS
    """Rows up to which all are held; beyond, a sample of so many."""


@dataclass(frozen=True)
class Terms:
    """What every piece of rows is measured with."""

    job: JobSpec
    ensemble: Ensemble
    wish: Wish
    own: Own | str | None = None
    """The rows that the run was made of, or why they are not to be had; None where nothing is asked of them."""
