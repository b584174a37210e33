"""From pydantic's errors to sentences a person can act on.

Pydantic says where and of which sort; what was found comes from the file's own data, and what is
allowed from the shape at that place. So every sort of error, also one that a future constraint
brings, gets the value, the permitted values and the nearest right answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ensemble_svc.errors import Fault, did_you_mean, unknown_choice
from ensemble_svc.registry import Choice, Spec
from ensemble_svc.spec.anatomy import JOB, Shape, field_shape, shape_at, value_at
from ensemble_svc.spec.catalogue import kind_of
from ensemble_svc.spec.compose import KeyPath, Lines, dotted
from ensemble_svc.spec.source import escaped
from ensemble_svc.spec.wording import allowed, hint, shown

MAX_FAULTS = 100


@dataclass(frozen=True)
class Finding:
    """A fault whose place is still a key path, so that its line can be looked up."""

    path: KeyPath
    message: str


def explain(error: ValidationError, data: Any, start: Shape = JOB) -> list[Finding]:
    """One finding for each faulty place of ``data``, which was validated as ``start``."""
    findings: dict[KeyPath, Finding] = {}
    missing: set[KeyPath] = set()
    meant: set[KeyPath] = set()
    for details in error.errors(include_url=False, include_input=False)[: 2 * MAX_FAULTS]:
        path = _key_path(details["loc"], data, start)
        if path is None:
            continue
        finding = _finding(details, path, data, start)
        findings.setdefault(finding.path, finding)
        if details["type"] == "missing":
            missing.add(finding.path)
        elif details["type"] == "extra_forbidden":
            meant.update((*path[:-1], near) for near in _near_keys(path, data, start))
    return [finding for path, finding in findings.items() if path not in missing & meant]


def located(findings: Iterable[Finding], lines: Lines) -> list[Fault]:
    """Faults, each with the line (or the ``--set``) that caused it."""
    return [_located(finding, lines) for finding in findings]


def in_order(faults: Iterable[Fault]) -> list[Fault]:
    """Faults by line, those without one first, and not more than a person will read."""
    ordered = sorted(faults, key=lambda fault: fault.line or 0)
    if len(ordered) > MAX_FAULTS:
        ordered[MAX_FAULTS:] = [Fault("", f"and {len(ordered) - MAX_FAULTS:,} or more faults after these")]
    return ordered


def overlaps(path: KeyPath, others: Iterable[KeyPath]) -> bool:
    """Whether ``path`` lies at, above or beneath one of ``others``."""
    return any(path[: len(other)] == other[: len(path)] for other in others)


def _located(finding: Finding, lines: Lines) -> Fault:
    path = finding.path
    while path and path not in lines:
        path = path[:-1]
    origin = lines.get(path)
    if isinstance(origin, str):
        return Fault(dotted(finding.path), f"{finding.message} (given by {origin})")
    return Fault(dotted(finding.path), finding.message, origin)


def _key_path(loc: Sequence[str | int], data: Any, start: Shape) -> KeyPath | None:
    """The keys of a pydantic location, without the tags and labels it puts between them.

    None for an error in an alternative that the value was never meant to be.
    """
    path: KeyPath = ()
    shape: Shape | None = start
    for part in loc:
        if shape is None:
            break
        if shape.choices and isinstance(part, str):
            section = shape.choices[part]
            shape = Shape(section)
            continue
        if len(shape.alternatives) > 1:
            lists = [alternative for alternative in shape.alternatives if alternative.is_list]
            if not lists or not isinstance(value_at(data, path), tuple):
                break
            if not str(part).startswith("tuple["):
                return None
            shape = lists[0]
            continue
        path = (*path, part)
        shape = shape.child(value_at(data, path[:-1]), part)
    return path


def _finding(details: ErrorDetails, path: KeyPath, data: Any, start: Shape) -> Finding:
    value, sort = value_at(data, path), details["type"]
    if sort == "missing" and isinstance(path[-1], int):
        path, sort = path[:-1], "too_short"
        value = value_at(data, path)
    shape = shape_at(data, path, start)
    if sort == "extra_forbidden" or shape is None:
        return Finding(path, _unknown_key(path, data, start))
    if sort == "missing":
        return Finding(path, f"is missing; must be {allowed(shape)}")
    if sort in ("value_error", "assertion_error"):
        return Finding(path, escaped(str(details.get("ctx", {}).get("error", details["msg"])), limit=300))
    if shape.choices:
        return _wrong_choice(path, value, shape.choices)
    if not path:
        return Finding(path, _no_mapping(value))
    return Finding(path, f"{shown(value)} is not allowed; must be {allowed(shape)}.{hint(value, shape)}")


def _no_mapping(value: Any) -> str:
    if value is None:
        return "the file is empty; a job needs at least a name and data"
    return f"{shown(value)} is not a job; write keys and values such as 'name: digits'"


def _wrong_choice(path: KeyPath, value: Any, choices: Mapping[str, type[Choice]]) -> Finding:
    """The finding for what does not name one of ``choices``."""
    known = ", ".join(choices)
    if isinstance(value, str):
        return Finding(path, _unknown_name(value, choices))
    if not isinstance(value, Mapping):
        words = f"must be one of {known}, or a mapping {{name: …}} with its options"
        return Finding(path, f"{shown(value)} is not allowed; {words}.")
    if isinstance(name := value.get("name"), str):
        return Finding((*path, "name"), _unknown_name(name, choices))
    if "name" in value:
        return Finding((*path, "name"), f"{shown(name)} is not allowed; must be one of {known}.")
    keys = [key for key in value if isinstance(key, str)]
    if near := [key for key in keys if get_close_matches("name", [key.lower()], n=1)]:
        words = f"unknown key. Did you mean 'name', which tells the {kind_of(choices)}?"
        return Finding((*path, near[0]), words)
    meant = next((key for key in keys if key in choices), None)
    example = f" Write {{name: {meant}, …}}." if meant else f" Known: {known}."
    return Finding(path, f"the name is missing, which tells which {kind_of(choices)} it is.{example}")


def _unknown_name(name: str, choices: Mapping[str, type[Choice]]) -> str:
    """What is wrong with a name that none of ``choices`` has: it may be a choice's option, or a file for a source."""
    kind, known = kind_of(choices), ", ".join(sorted(choices))
    begin = f"{kind} '{escaped(name)}' is unknown."
    for choice, options in choices.items():
        for key, field in options.model_fields.items():
            if key != "name" and name != "auto" and name in get_args(field.annotation):
                return f"{begin} It is a {key} of {choice}: write {{name: {choice}, {key}: {name}}}. Known: {known}."
    if kind == "source" and (meant := _of_file(name)):
        return f"{begin} For a file write {meant}. Known: {known}."
    return unknown_choice(kind, escaped(name), choices)


def _of_file(name: str) -> str:
    """How a file is given as a source; nothing where the name does not end as one of them."""
    path = escaped(name)
    match Path(name).suffix.lower():
        case ".csv" | ".tsv" | ".txt":
            return f"{{name: csv, path: {path}, target: …}}"
        case ".parquet":
            return f"{{name: parquet, path: {path}, target: …}}"
        case ".npz":
            return f"{{name: npz, path: {path}}}"
        case _:
            return ""


def _unknown_key(path: KeyPath, data: Any, start: Shape) -> str:
    key, parent = str(path[-1]), shape_at(data, path[:-1], start)
    section = parent.section(value_at(data, path[:-1])) if parent else None
    if parent is None or section is None:
        return "unknown key"
    near = did_you_mean(key, section.model_fields) or _elsewhere(key, section, parent)
    return f"unknown key.{near} Known: {', '.join(section.model_fields)}."


def _elsewhere(key: str, section: type[Spec], parent: Shape) -> str:
    """Where a key that is right, but not here, would be right; a sentence or nothing."""
    owners = [name for name, choice in parent.choices.items() if key in choice.model_fields]
    if owners:
        return f" '{key}' is an option of {', '.join(owners)}, not of {section.model_fields['name'].default}."
    places = [dotted(path) for path in _sections() if key == path[-1]]
    return f" '{key}' belongs at {places[0]}." if places else ""


def _sections(path: KeyPath = (), shape: Shape = JOB) -> Iterator[KeyPath]:
    """Every key of the file that does not hang on a choice."""
    section = None if shape.choices else shape.section(None)
    for key in section.model_fields if section else ():
        yield (*path, key)
        if section and (child := field_shape(section, key)):
            yield from _sections((*path, key), child)


def _near_keys(path: KeyPath, data: Any, start: Shape) -> list[str]:
    """The key that a misspelt one most likely stands for: its absence needs no second message."""
    shape = shape_at(data, path[:-1], start)
    section = shape.section(value_at(data, path[:-1])) if shape else None
    return get_close_matches(str(path[-1]).lower(), section.model_fields, n=1) if section else []
