"""Values and types in words, for messages and for the catalogue of choices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isclose
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from ensemble_svc.errors import did_you_mean
from ensemble_svc.registry import Spec
from ensemble_svc.spec.anatomy import Shape, shape_of
from ensemble_svc.spec.fields import Says
from ensemble_svc.spec.scalars import MAX_DIGITS, scalar
from ensemble_svc.spec.source import escaped

_MAX_SHOWN_ITEMS = 8
_TRUTH = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def count(amount: int, noun: str) -> str:
    """``1 member``, ``1,200 members``."""
    return f"{amount:,} {noun}" + ("" if amount == 1 else "s")


def shown(value: Any) -> str:
    """A value as a job file would have it, on one short line and safe to print."""
    return escaped(_flow(value, depth=0))


def allowed(shape: Shape) -> str:
    """What may stand at a place, as the end of a sentence that began with ``must be``."""
    if choices := shape.choices:
        bare = ", ".join(choices)
        words = [f"one of {bare}, or a mapping {{name: …}} with its options"]
    else:
        words = [_allowed_type(alternative) for alternative in shape.alternatives]
    return ", or ".join([*words, *(["null"] if shape.takes_null and shape.type is not NoneType else [])])


def hint(value: Any, shape: Shape) -> str:
    """What the person most likely meant, as a sentence with a leading space; or nothing."""
    kinds = [alternative.type for alternative in shape.alternatives]
    if isinstance(value, str):
        known = [str(x) for kind in kinds if get_origin(kind) is Literal for x in get_args(kind)]
        if found := did_you_mean(value[:100], known) or _unquoted(value, kinds):
            return found
    if isinstance(value, float) and int in kinds and value.is_integer() and abs(value) < 2**53:
        return f" Write {int(value)}."
    if isinstance(value, int | float) and not isinstance(value, bool) and kinds == [str]:
        return f" Put quotes around it: '{value}'."
    if any(alternative.is_list for alternative in shape.alternatives) and not isinstance(value, tuple | None):
        return f" Write a list: [{shown(value)}]."
    return ""


def _limits(marks: tuple[Any, ...], *, whole: bool) -> Iterator[str]:
    for mark in marks:
        match mark:
            case Gt(gt=0) if whole:
                yield "at least 1"
            case Gt(gt=low):
                yield f"above {low:,}"
            case Ge(ge=low):
                yield f"at least {low:,}"
            case Lt(lt=high):
                yield f"below {high:,}"
            case Le(le=high):
                yield f"at most {high:,}"
            case _:
                pass


def _allowed_type(shape: Shape) -> str:
    kind = shape.type
    if kind in (int, float):
        noun = "a whole number" if kind is int else "a number"
        bounds = " and ".join(_limits(shape.marks, whole=kind is int))
        return f"{noun}{' of' if bounds.startswith('at') else ''} {bounds}".rstrip()
    if kind is bool:
        return "true or false"
    if kind is str:
        return _allowed_text(shape.marks)
    if kind in (NoneType, None):
        return "null"
    if get_origin(kind) is Literal:
        values = [str(value) for value in get_args(kind)]
        return values[0] if len(values) == 1 else f"one of {', '.join(values)}"
    if shape.is_list:
        return _allowed_list(shape)
    if shape.is_mapping:
        return f"a mapping of names to {allowed(shape_of(get_args(kind)[1]))}"
    if isinstance(kind, type) and issubclass(kind, Spec):
        return f"a mapping with the keys {', '.join(kind.model_fields)}"
    return "any value"


def _allowed_text(marks: tuple[Any, ...]) -> str:
    says = [mark.words for mark in marks if isinstance(mark, Says)]
    is_char = any(isinstance(mark, MaxLen) and mark.max_length == 1 for mark in marks)
    return says[0] if says else "one character" if is_char else "a text"


def _allowed_list(shape: Shape) -> str:
    items = get_args(shape.type)
    if items[-1] is not Ellipsis:
        words = [allowed(shape_of(item)) for item in items]
        each = f"each {words[0]}" if len(set(words)) == 1 else "; ".join(words)
        return f"a list of {len(items)} items, {each}"
    least = [f"at least {mark.min_length}" for mark in shape.marks if isinstance(mark, MinLen)]
    most = [f"at most {mark.max_length}" for mark in shape.marks if isinstance(mark, MaxLen)]
    count = " of " + " and ".join(least + most) + " items" if least or most else ""
    item = allowed(shape_of(items[0]))
    return f"a list{count}" if item == "any value" else f"a list{count}, each {item}"


def _unquoted(value: str, kinds: list[Any]) -> str:
    """A text where a number or a truth value is wanted, that would be one without its quotes."""
    if bool in kinds and value.lower() in _TRUTH:
        return f" YAML 1.2 reads '{value}' as text; write {_TRUTH[value.lower()]}."
    if len(value) > MAX_DIGITS:
        return ""
    meant = type(scalar(value.strip()))
    return " Take the quotes off." if meant in kinds or (meant is int and float in kinds) else ""


def _flow(value: Any, *, depth: int) -> str:
    if depth > 3:
        return "…"
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return f"'{value[:200]}'"
        case float() if value in (float("inf"), float("-inf")) or value != value:
            return f"{value}".replace("inf", ".inf").replace("nan", ".nan")
        case float():
            return _decimal(value)
        case Mapping():
            items = (f"{str(k)[:200]}: {_flow(v, depth=depth + 1)}" for k, v in _first(value.items()))
            return "{" + ", ".join(items) + "}"
        case tuple() | list():
            return "[" + ", ".join(_flow(item, depth=depth + 1) for item in _first(value)) + "]"
        case _:
            return str(value)


def _decimal(value: float) -> str:
    """A number without the round-off of a sum: -0.2 for -0.20000000000000004."""
    whole, short = str(value), f"{value:.12g}"
    return short if len(short) + 3 < len(whole) and isclose(float(short), value, rel_tol=1e-14) else whole


def _first(items: Any) -> Iterator[Any]:
    return (item for _, item in zip(range(_MAX_SHOWN_ITEMS), items, strict=False))
