"""A member with other values of some keys, as it trains once they have changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter

from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.registry import frozen
from ensemble_svc.spec.augment import Augment
from ensemble_svc.spec.model import Model
from ensemble_svc.spec.override import put, split_path
from ensemble_svc.spec.training import TrainingSpec

_PARTS: Final[dict[str, TypeAdapter[Any]]] = {
    "model": TypeAdapter(Model),
    "training": TypeAdapter(TrainingSpec),
    "augment": TypeAdapter(tuple[Augment, ...]),
}


def with_values(member: MemberSpec, values: Mapping[str, Any]) -> MemberSpec:
    """The member with these values by dotted path, and all else as it was: its seed, its rows, its initial weights.

    A key at the value that it has is left alone, with the options below it.
    """
    values = {k: value for k, value in values.items() if k not in member.varied or _is_new(member, k, value)}
    data: dict[str, Any] = {
        "model": member.model.model_dump(),
        "training": member.training.model_dump(),
        "data": {"augment": tuple(step.model_dump() for step in member.augment)},
    }
    data = frozen(data)
    for key, value in values.items():
        data = put(data, split_path(key, data), value)
    parts = {"model": data["model"], "training": data["training"], "augment": data["data"]["augment"]}
    own = {name: getattr(member, name) for name in MemberSpec.model_fields}
    changed = {name: _PARTS[name].validate_python(part) for name, part in parts.items()}
    return MemberSpec(**own | changed | {"varied": {**member.varied, **values}})


def _is_new(member: MemberSpec, key: str, value: Any) -> bool:
    return bool(frozen(member.varied[key]) != frozen(value))
