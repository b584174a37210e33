"""A drawing with its words, as the page places it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from ensemble_svc.report.text import clean

LINES_UP_TO = 16
"""Lines of a figure's table at most."""


@dataclass(frozen=True)
class Numbers:
    """What a drawing shows, to be read: its text alternative."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left_out: int = 0
    """Lines that the table would have had besides."""

    @classmethod
    def of(cls, head: Iterable[str], rows: Iterable[Iterable[object]], *, spread: bool = False) -> Numbers:
        """The first lines, or with ``spread`` as many that are evenly spread over all."""
        every = [tuple(clean(cell, limit=80) for cell in row) for row in rows]
        last = max(1, min(LINES_UP_TO, len(every)) - 1)
        places = range(min(LINES_UP_TO, len(every)))
        some = [every[round(i * (len(every) - 1) / last)] for i in places] if spread else every[:LINES_UP_TO]
        return cls(tuple(clean(name, limit=80) for name in head), tuple(some), len(every) - len(some))


@dataclass(frozen=True)
class Figure:
    """One plot of the page."""

    title: str
    drawing: Markup
    caption: str = ""
    """What to see in it, one or two sentences."""
    legend: tuple[tuple[str, str], ...] = ()
    """(class of the mark, words)."""
    wide: bool = False
    """Takes the whole width of the page, not half."""
    full: bool = False
    """And its drawing is as wide as that."""
    numbers: Numbers | None = None
    """The same in numbers, folded."""
