"""What an unquoted word of YAML 1.2 means (the core schema, yaml.org/spec/1.2.2, section 10.3)."""

from __future__ import annotations

import re
from typing import Any

MAX_DIGITS = 100

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def scalar(text: str) -> Any:
    """What an unquoted scalar means in YAML 1.2's core schema.

    Raises:
        ValueError: a number of more digits than any option has.
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    is_int, is_float = _INT.fullmatch(text), _FLOAT.fullmatch(text)
    if (is_int or is_float) and len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} characters; put quotes around it if it is a text")
    if is_int:
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text, base)
    if is_float:
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text
