"""A drawing with its words, as the page places it."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup


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
