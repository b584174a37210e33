"""Random jobs, drawn from the specs' own shapes: a new field or choice is drawn as soon as it is declared."""

from __future__ import annotations

import math
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from hypothesis import strategies as st

from ensemble_svc.registry import Spec
from ensemble_svc.spec.anatomy import JOB, Shape, field_shape, shape_of
from ensemble_svc.spec.fields import Says

TRICKY = (
    *("no", "1e-3", "~", "null", "010", "0x1F", "1:30", "2001-01-01", "- a", "a: b", "#"),
    *("é\n\t\x07", "=", "<<", ".inf", "", " a ", "?>", "\x85", "\u2028"),
)
letters = st.characters(exclude_categories=["Cs"])
texts = st.one_of(st.sampled_from(TRICKY), st.text(letters, max_size=20))
numbers = st.one_of(st.integers(-(10**12), 10**12), st.floats(allow_nan=False, allow_infinity=False))
plain = st.one_of(st.none(), st.booleans(), numbers, texts)
trees = st.recursive(
    plain,
    lambda t: st.one_of(st.lists(t, max_size=3).map(tuple), st.dictionaries(texts, t, max_size=3)),
    max_leaves=6,
)
"""What a user may hand to a factory of their own."""

ALLOWED_TEXT = {"a path": st.sampled_from(("a.csv", "~/x y", "$DATA/é.npz", "../..", "null"))}
ALLOWED_VARY = (
    {},
    {"training.batch_size": (8, 16)},
    {"training.epochs": (1,), "training.clip_norm": (None, 0.5, 1)},
)


ALLOWED_SEARCH = (
    None,
    {"space": {"training.clip_norm": {"uniform": (0.5, 2)}}, "trials": 3},
    {
        "space": {"training.epochs": {"choice": (1, 2)}, "training.clip_norm": {"quniform": (1, 2, 1)}},
        "algorithm": "grid",
    },
)


def values(shape: Shape) -> st.SearchStrategy[Any]:
    """Values that may stand at a place, as a job file would give them."""
    if choices := shape.choices:
        return st.one_of([section(choice, only_given=True) for choice in choices.values()])
    found = [_values_of(alternative) for alternative in shape.alternatives]
    return st.one_of(*found, *([st.none()] if shape.takes_null else []))


def section(spec: type[Spec], *, only_given: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping for ``spec`` with its required keys and some of the others."""
    shapes = {key: field_shape(spec, key) for key in spec.model_fields}
    found = {key: values(shape) for key, shape in shapes.items() if shape is not None}
    if "vary" in found:
        found["vary"] = st.sampled_from(ALLOWED_VARY)
    if "search" in found:
        found["search"] = st.sampled_from(ALLOWED_SEARCH)
    needed = {key for key, field in spec.model_fields.items() if field.is_required()}
    needed |= {"name"} if only_given else set()
    optional = {key: value for key, value in found.items() if key not in needed}
    return st.fixed_dictionaries({key: found[key] for key in sorted(needed)}, optional=optional)


def jobs() -> st.SearchStrategy[dict[str, Any]]:
    """Data that the schema allows; its keys may contradict each other."""
    return section(JOB.type)


def _values_of(shape: Shape) -> st.SearchStrategy[Any]:
    kind = shape.type
    if kind in (int, float):
        return _numbers(shape)
    if kind is bool:
        return st.booleans()
    if kind is str:
        return _texts(shape)
    if kind in (NoneType, None):
        return st.none()
    if kind is Any:
        return trees
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if shape.is_list:
        return _lists(shape)
    if isinstance(kind, type) and issubclass(kind, Spec):
        return section(kind)
    if shape.is_mapping:
        item = shape_of(get_args(kind)[1])
        own = isinstance(item.type, type) and issubclass(item.type, Spec)
        return st.dictionaries(texts, values(item) if own else trees, max_size=3)
    raise AssertionError(f"no strategy for {kind}")


def _numbers(shape: Shape) -> st.SearchStrategy[Any]:
    low, high, open_low, open_high = -math.inf, math.inf, False, False
    for mark in shape.marks:
        match mark:
            case Ge(ge=bound):
                low = bound
            case Gt(gt=bound):
                low, open_low = bound, True
            case Le(le=bound):
                high = bound
            case Lt(lt=bound):
                high, open_high = bound, True
    if shape.type is int:
        first = None if low == -math.inf else int(low) + open_low
        return st.integers(first, None if high == math.inf else int(high) - open_high)
    return st.floats(
        None if low == -math.inf else low,
        None if high == math.inf else high,
        exclude_min=open_low,
        exclude_max=open_high,
        allow_nan=False,
        allow_infinity=False,
    )


def _texts(shape: Shape) -> st.SearchStrategy[str]:
    says = [mark.words for mark in shape.marks if isinstance(mark, Says)]
    if not says:
        most = min((mark.max_length for mark in shape.marks if isinstance(mark, MaxLen)), default=None)
        return texts if most is None else st.text(letters, min_size=1, max_size=most)
    if says[0].startswith("'module:function'"):
        return st.sampled_from(("a:b", "my_pkg.nets:build"))
    return ALLOWED_TEXT.get(says[0], st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True))


def _lists(shape: Shape) -> st.SearchStrategy[tuple[Any, ...]]:
    items = get_args(shape.type)
    if items[-1] is not Ellipsis:
        return st.tuples(*(values(shape_of(item)) for item in items))
    least = max((mark.min_length for mark in shape.marks if isinstance(mark, MinLen)), default=0)
    return st.lists(values(shape_of(items[0])), min_size=least, max_size=least + 2).map(tuple)
