"""What must be equal for members to share a pack, and what may differ."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from pydantic import BaseModel

from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.registry import Choice, Elementwise


def structure(member: MemberSpec, num_rows: int) -> str:
    """A key that is equal for members that can train in one pack.

    Left out are the member's index and every option marked ``Elementwise``, unless its value is a
    choice that gives the member other parts; ``num_rows``, the
    length of its bag, is in it because the steps of an epoch follow from it.
    """
    parts = {
        "model": shape(member.model),
        "training": shape(member.training),
        "preprocess": [shape(step) for step in member.preprocess],
        "augment": [shape(step) for step in member.augment],
        "rows": num_rows,
    }
    return json.dumps(parts, sort_keys=True)


@cache
def _fields(section: type[BaseModel]) -> tuple[tuple[str, bool], ...]:
    """The fields of a specification, and whether the members of a pack have each one alike."""
    fields = section.model_fields.items()
    return tuple((n, not any(isinstance(mark, Elementwise) for mark in f.metadata)) for n, f in fields)


def _is_structural(value: Any) -> bool:
    return isinstance(value, Choice) and value.is_structural


def shape(value: Any) -> Any:
    """The JSON form of a specification without its elementwise options: equal where those alone differ."""
    if isinstance(value, BaseModel):
        held = ((name, getattr(value, name), alike) for name, alike in _fields(type(value)))
        return {name: shape(own) for name, own, alike in held if alike or _is_structural(own)}
    if isinstance(value, tuple | list):
        return [shape(item) for item in value]
    if isinstance(value, dict):
        return {str(key): shape(item) for key, item in value.items()}
    return value
