"""``--set training.epochs=5``: one key of the job, given on the command line.

The value is YAML, and whatever comes out is validated like the file itself, so an unknown key or
a wrong value is told in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from ensemble_svc.errors import Fault, SpecError
from ensemble_svc.spec.anatomy import JOB, Shape, shape_at, shape_of, value_at
from ensemble_svc.spec.compose import KeyPath, Lines, dotted
from ensemble_svc.spec.source import escaped
from ensemble_svc.spec.yaml import read


def apply_overrides(data: Any, overrides: Sequence[str], lines: Lines | None = None) -> tuple[Any, Lines]:
    """The job's data with every ``path=value`` set, in order; and where each value now stands.

    A list's items are counted from 0 (``data.augment.0.padding=2``). A choice written as its bare
    name becomes a mapping when one of its options is set; setting a choice by its name replaces it
    with all its options.

    Raises:
        SpecError: with every override that cannot be read or put in place.
    """
    data, lines, faults = overridden(data, overrides, lines or {})
    if faults:
        raise SpecError(faults)
    return data, lines


def overridden(data: Any, overrides: Sequence[str], lines: Lines) -> tuple[Any, Lines, tuple[Fault, ...]]:
    """Like ``apply_overrides``, but what cannot be set is left out and its faults are handed back."""
    faults: list[Fault] = []
    given: dict[KeyPath, str] = {}
    for override in overrides:
        origin = origin_of(override)
        try:
            path, value = _parsed(override, data)
            _refuse_undoing(path, given, data)
            new = put(data, path, value)
        except SpecError as error:
            faults += [Fault(fault.path, f"{fault.message} (given by {origin})") for fault in error.faults]
            continue
        data, lines = new, _lines_after(path, origin, data, lines)
        given[path] = override
    return data, lines, tuple(faults)


def _lines_after(path: KeyPath, origin: str, before: Any, lines: Lines) -> Lines:
    """Where values stand once ``path`` is set: what it made or replaced came from the override."""
    known = {other: line for other, line in lines.items() if other[: len(path)] != path}
    for depth in range(1, len(path)):
        shape = shape_at(before, path[:depth])
        if not (isinstance(value_at(before, path[:depth]), Mapping | tuple) or (shape and shape.choices)):
            known[path[:depth]] = origin
    return {path[:depth]: origin for depth in range(1, len(path) + 1)} | known


def origin_of(override: str) -> str:
    """How messages name an override."""
    return f"--set {escaped(override, limit=80)}"


def put(data: Any, path: KeyPath, value: Any, shape: Shape | None = JOB) -> Any:
    """``data`` with ``value`` at ``path``; what is missing on the way is made.

    Raises:
        SpecError: an index that the list at hand does not have.
    """
    return _put(data, path, value, shape, done=())


def split_path(text: str, data: Any, start: Shape = JOB) -> KeyPath:
    """The keys of a dotted path; what lies under ``ensemble.vary`` is one key with dots in it.

    Raises:
        SpecError: an empty key.
    """
    path: KeyPath = ()
    parts = text.split(".")
    if not all(parts):
        raise SpecError([Fault("", f"'{escaped(text)}' is no key path; write keys with single dots between")])
    for number, part in enumerate(parts):
        shape = shape_at(data, path, start)
        if shape and shape.is_mapping and get_args(shape.type)[1] is not Any:
            return (*path, *_own_name(parts[number:], shape, value_at(data, path)))
        is_index = part.isascii() and part.isdigit() and len(part) < 10
        is_list = shape is not None and any(alternative.is_list for alternative in shape.alternatives)
        path = (*path, int(part) if is_index and is_list else part)
    return path


def _own_name(parts: Sequence[str], shape: Shape, there: Any) -> KeyPath:
    """What is left of a path below a mapping of the user's own names, which may have dots.

    Where the items are sections themselves, the name is the longest that is there and begins the rest; a new one
    ends where a key of such a section follows.
    """
    section = shape_of(get_args(shape.type)[1]).section(None)
    if section is None:
        return (".".join(parts),)
    known = there if isinstance(there, Mapping) else {}
    ends = [end for end in range(len(parts), 0, -1) if ".".join(parts[:end]) in known]
    ends += [end for end in range(1, len(parts)) if parts[end] in section.model_fields]
    end = next(iter(ends), len(parts))
    return (".".join(parts[:end]), *parts[end:])


def _parsed(override: str, data: Any) -> tuple[KeyPath, Any]:
    text, equals, value = override.partition("=")
    if not equals:
        raise SpecError("write key=value, such as training.epochs=5")
    path = split_path(text.strip(), data)
    try:
        return path, read(value)[0]
    except SpecError as error:
        raise SpecError([Fault(dotted(path), fault.message) for fault in error.faults]) from error


def _refuse_undoing(path: KeyPath, given: Mapping[KeyPath, str], data: Any) -> None:
    """A later override must not silently take an earlier one away with it."""
    parent = shape_at(data, path[:-1])
    whole = path[:-1] if path[-1] == "name" and parent and parent.choices else path
    for earlier, override in given.items():
        if len(earlier) > len(whole) and earlier[: len(whole)] == whole and earlier != path:
            raise SpecError([Fault(dotted(path), f"undoes '{escaped(override)}'; give it before that one")])


def _put(data: Any, path: KeyPath, value: Any, shape: Shape | None, *, done: KeyPath) -> Any:
    if not path:
        return value
    key, rest = path[0], path[1:]
    child = shape.child(_opened(data, shape), key) if shape else None
    if isinstance(data, tuple):
        return _put_item(data, path, value, child, done=done)
    if isinstance(key, int):
        raise SpecError([Fault(dotted((*done, key)), f"there is no item {key}; set the whole list")])
    mapping = _opened(data, shape)
    if key == "name" and not rest and shape and shape.choices and mapping.get("name") != value:
        return {"name": value}
    return {**mapping, key: _put(mapping.get(key, _default(child)), rest, value, child, done=(*done, key))}


def _put_item(
    items: tuple[Any, ...], path: KeyPath, value: Any, child: Shape | None, *, done: KeyPath
) -> tuple[Any, ...]:
    key = path[0]
    if not isinstance(key, int) or key >= len(items):
        known = f"items 0 to {len(items) - 1}" if items else "no items; set the whole list"
        raise SpecError(
            [Fault(dotted((*done, key)), f"there is no item '{escaped(str(key))}'; the list has {known}")]
        )
    item = _put(items[key], path[1:], value, child, done=(*done, key))
    return (*items[:key], item, *items[key + 1 :])


def _opened(data: Any, shape: Shape | None) -> Mapping[str, Any]:
    """The mapping to put a key into: a bare choice becomes one, anything else but a mapping gives way."""
    if isinstance(data, Mapping):
        return data
    return {"name": data} if isinstance(data, str) and shape and shape.choices else {}


def _default(shape: Shape | None) -> Any:
    """What stands where the file is silent: a list, or the name of a choice."""
    default = shape.field.default if shape and shape.field else None
    return default if isinstance(default, tuple) else shape.default_name if shape else None
