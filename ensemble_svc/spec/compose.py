"""From YAML's events to plain values with line numbers.

The reader builds the values itself from ruamel.yaml's events, so that what is read is exactly the
core schema of YAML 1.2 (``1e-3`` is a number, ``no`` is text, ``010`` is ten), each value's line is
known, and nothing is ever constructed that a file names. Tags, anchors, aliases, duplicate keys and
further documents are refused; size, depth and the number of values are capped before they cost
anything. Lists become tuples, which is what strict specs take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)

from ensemble_svc.errors import Fault
from ensemble_svc.spec.scalars import scalar
from ensemble_svc.spec.source import escaped, read_text

KeyPath = tuple[str | int, ...]
"""Keys and list indices from the top of the file to a value."""

Lines = Mapping[KeyPath, int | str]
"""Where each value was given: its 1-based line, or the ``--set`` that gave it."""

MAX_DEPTH = 50
MAX_VALUES = 10_000
MAX_KEY_LENGTH = 200
MAX_TEXT_LENGTH = 5_000


@dataclass(frozen=True)
class Document:
    """What a YAML text holds, as far as it could be understood."""

    data: Any
    """Mappings as dict, lists as tuple, an empty text as None."""
    lines: Lines
    faults: tuple[Fault, ...] = ()
    refused: tuple[KeyPath, ...] = ()
    """Where the faults stand; the values there mean nothing."""
    complete: bool = True
    """False when a fault hid all that follows it."""


def compose(text: str | bytes | Path) -> Document:
    """Like ``read``, but what is understood comes with the faults instead of giving way to them.

    Raises:
        SpecError: what is no readable text at all.
    """
    return _Composer(read_text(text)).document()


class _Stop(Exception):
    """Nothing after this can be understood."""


class _Composer:
    """Builds one document's values; notes each one's line and everything that is refused."""

    def __init__(self, text: str) -> None:
        self.faults: list[Fault] = []
        self.refused: list[KeyPath] = []
        self.lines: dict[KeyPath, int | str] = {}
        self.num_values = 0
        self.events: Iterator[Any] = iter(YAML(typ="safe", pure=True).parse(text))

    def document(self) -> Document:
        """The one document, up to the first fault that nothing can follow."""
        data, complete = None, True
        try:
            while not isinstance(event := next(self.events), StreamEndEvent | DocumentStartEvent):
                pass
            if isinstance(event, DocumentStartEvent):
                self.check_version(event)
                data = self.value((), next(self.events))
                self.expect_end()
        except _Stop:
            complete = False
        except MarkedYAMLError as error:
            complete = False
            self.faults.append(_syntax_fault(error))
        return Document(data, self.lines, tuple(self.faults), tuple(self.refused), complete)

    def check_version(self, event: Any) -> None:
        if event.version not in (None, (1, 2)):
            version = ".".join(map(str, event.version))
            self.refuse((), event, f"YAML {version} is asked for; only YAML 1.2 is read. Drop the line.")

    def expect_end(self) -> None:
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                self.refuse((), event, "a second document starts here; a file holds one. Remove '---'.")
                raise _Stop

    def value(self, path: KeyPath, event: Any, line: int | None = None) -> Any:
        self.lines[path] = line or _line(event)
        self.num_values += 1
        if len(path) > MAX_DEPTH:
            self.refuse(path[:3], event, f"nested more than {MAX_DEPTH} levels deep")
            raise _Stop
        if self.num_values > MAX_VALUES:
            self.refuse((), event, f"more than {MAX_VALUES:,} values; a job file holds far fewer")
            raise _Stop
        if isinstance(event, AliasEvent):
            self.refuse(path, event, f"the alias '*{escaped(event.anchor)}' is refused; write the value out")
            return None
        self.refuse_marks(path, event)
        if isinstance(event, ScalarEvent):
            return self.scalar(path, event)
        return self.mapping(path) if isinstance(event, MappingStartEvent) else self.sequence(path)

    def refuse_marks(self, path: KeyPath, event: Any) -> None:
        if event.anchor:
            self.refuse(path, event, f"the anchor '&{escaped(event.anchor)}' is refused; write values out")
        if event.tag:
            self.refuse(path, event, f"the tag '{escaped(event.tag)}' is refused; write plain values")

    def scalar(self, path: KeyPath, event: Any) -> Any:
        if any("\ud800" <= char <= "\udfff" for char in event.value):
            self.refuse(path, event, "half of a surrogate pair; write \\U and 8 digits")
            return None
        if len(event.value) > MAX_TEXT_LENGTH:
            what = f"a text of {len(event.value):,} characters; at most {MAX_TEXT_LENGTH:,} are allowed"
            self.refuse(path, event, what)
            return None
        if event.style:
            return event.value
        try:
            return scalar(event.value)
        except ValueError as error:
            self.refuse(path, event, str(error))
            return None

    def sequence(self, path: KeyPath) -> tuple[Any, ...]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            items.append(self.value((*path, len(items)), event))
        return tuple(items)

    def mapping(self, path: KeyPath) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            key, line = self.key(path, event), _line(event)
            if key is None:
                self.value((*path, "?"), next(self.events))
            elif key not in items:
                items[key] = self.value((*path, key), next(self.events), line)
            else:
                first = self.lines[(*path, key)]
                self.refuse((*path, key), event, f"given twice, on lines {first} and {line}; keep one")
                self.value((*path, key), next(self.events), line)
                self.lines[(*path, key)] = first
        return items

    def key(self, path: KeyPath, event: Any) -> str | None:
        """The key, or None (and a fault) when it is not a short text."""
        if not isinstance(event, ScalarEvent):
            self.value((*path, "?"), event)
            self.refuse((*path, "?"), event, "keys are text, not aliases, lists or mappings")
            return None
        self.refuse_marks((*path, event.value), event)
        if len(event.value) > MAX_KEY_LENGTH:
            what = f"a key of {len(event.value):,} characters; at most {MAX_KEY_LENGTH} are allowed"
            self.refuse((*path, event.value), event, what)
            return None
        if not isinstance(self.scalar((*path, event.value), event), str):
            self.refuse((*path, event.value), event, "keys are text; put quotes around this one")
            return None
        return event.value

    def refuse(self, path: KeyPath, event: Any, message: str) -> None:
        self.faults.append(Fault(dotted(path), message, _line(event)))
        self.refused.append(path)


def dotted(path: KeyPath) -> str:
    """``training.optimizer.lr``, safe to print."""
    return ".".join(escaped(str(key)) or "''" for key in path)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _syntax_fault(error: MarkedYAMLError) -> Fault:
    mark, context = error.problem_mark or error.context_mark, error.context_mark
    problem = escaped(str(error.problem or error.context), limit=200)
    if "'\\t'" in problem:
        return Fault("", "a tab where YAML wants spaces; indent with spaces", mark.line + 1)
    where = f" ({error.context} that starts on line {context.line + 1})" if context else ""
    is_bare = "mapping values" in problem or "start any token" in problem
    hint = ". Put quotes around a text that holds ': ' or starts with one of @ ` % & *" if is_bare else ""
    return Fault("", f"not valid YAML: {problem}{where}{hint}", mark.line + 1)
