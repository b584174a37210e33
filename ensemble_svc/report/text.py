"""Words and numbers as a person wants to read them.

Pure and light: the terminal uses it too, so nothing here loads torch.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from typing import Any, TypeGuard

from ensemble_svc.spec.wording import count as count

DASH = "—"
"""Stands where there is no number."""


def clean(text: object, *, limit: int = 2000) -> str:
    """Text from elsewhere, safe to show on one line.

    Control characters, lone surrogates and marks that reverse the reading order become U+FFFD, the
    replacement character; markup is left for the page's own escaping. Longer than ``limit`` is cut.
    """
    text = str(text)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(" " if c in "\n\r\t" else c if _shown(c) else "\N{REPLACEMENT CHARACTER}" for c in text)


def _shown(character: str) -> bool:
    if unicodedata.category(character) in {"Cc", "Cs", "Cn"}:
        return False
    return unicodedata.bidirectional(character) not in {
        "LRE",
        "RLE",
        "LRO",
        "RLO",
        "PDF",
        "LRI",
        "RLI",
        "FSI",
        "PDI",
    }


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether there is a finite number to show."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def decimals(spread: float) -> int:
    """Digits after the point that a value of this uncertainty deserves, 0 to 6.

    One digit of the spread, two when it starts with 1 or 2, as the Particle Data Group rounds.
    """
    if not is_number(spread) or spread <= 0:
        return 3
    power = math.floor(math.log10(spread))
    leading = spread / 10**power
    return min(6, max(0, -power + (leading < 3)))


def number(value: Any, places: int | None = None, *, signed: bool = False) -> str:
    """A number with ``places`` decimals (4 significant digits when None) and a true minus sign."""
    if isinstance(value, float) and math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if not is_number(value):
        return DASH
    size = abs(value)
    sign = "+" if signed else ""
    if size >= 1e7 or (0 < size < 1e-4 and places is None):
        text = f"{value:{sign}.2e}"
    else:
        places = _significant(size) if places is None else places
        text = f"{value:{sign},.{places}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-+")
    return text.replace("-", "−")


def _significant(size: float) -> int:
    if size == 0 or float(size).is_integer():
        return 0
    return min(6, max(0, 3 - math.floor(math.log10(size))))


def duration(seconds: Any) -> str:
    """``0.84 s``, ``12.3 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if not is_number(seconds):
        return DASH
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def memory(size: Any) -> str:
    """``640 MB``, ``1.9 GB``; powers of ten."""
    if not is_number(size):
        return DASH
    return f"{size / 1e9:.1f} GB" if size >= 9.995e8 else f"{size / 1e6:.0f} MB"


def joined(parts: Iterable[str], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *head, tail = list(parts)
    return f"{', '.join(head)} {last} {tail}" if head else tail


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Dotted keys by as few of their last parts as tell them apart: ``lr`` of ``training.optimizer.lr``."""
    parts = {key: key.split(".") for key in keys}

    def ends(key: str, size: int) -> list[str]:
        return parts[key][-size:]

    def is_alone(key: str, size: int) -> bool:
        return all(other == key or ends(other, size) != ends(key, size) for other in parts)

    sizes = {key: range(1, len(own) + 1) for key, own in parts.items()}
    return {
        key: ".".join(ends(key, next((n for n in sizes[key] if is_alone(key, n)), len(own))))
        for key, own in parts.items()
    }


def brief(thing: Any) -> str:
    """A value with as many digits as one looks at."""
    words = value(thing)
    return f"{thing:.3g}" if isinstance(thing, float) and not words.isdecimal() else words


def value(thing: Any) -> str:
    """An option's value as a job file would show it, shortened."""
    if thing is None:
        return DASH
    if isinstance(thing, float):
        return f"{thing:g}"
    if isinstance(thing, (list, tuple)):
        return "[" + ", ".join(map(value, thing)) + "]"
    if isinstance(thing, dict):
        return "{" + ", ".join(f"{clean(k)}: {value(v)}" for k, v in thing.items()) + "}"
    return clean(thing, limit=200)
