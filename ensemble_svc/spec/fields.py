"""Types of options that several sections share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, StringConstraints


@dataclass(frozen=True)
class Says:
    """What a text's pattern asks for, in words for the person who writes it."""

    words: str


Fraction = Annotated[float, Field(ge=0, lt=1)]
"""A share of the rows, 0 included, the whole excluded."""

Share = Annotated[float, Field(gt=0, le=1)]
"""A share of something, the whole included, nothing excluded."""

Chance = Annotated[float, Field(ge=0, le=1)]
"""A probability."""

Factory = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"),
    Says("'module:function', such as my_pkg.nets:build"),
]
"""``package.module:function``, imported with the job's working directory on the path."""

RunName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"),
    Says("a name of at most 100 letters, digits, '.', '_' and '-' that starts with a letter or digit"),
]
"""Letters, digits, dot, underscore and hyphen; it becomes the name of a folder."""

DataPath = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00]+$"), Says("a path")]
"""A path; ``$NAME`` and ``~`` are expanded, relative ones start at the current folder."""
