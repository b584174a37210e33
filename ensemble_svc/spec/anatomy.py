"""The job file's shape, read off the specs' own annotations: which keys may stand where.

Everything that must find its way along a key path (messages, ``--set``, ``vary``, the catalogue)
asks here, so that a new field or choice is known to all of them by being declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ensemble_svc.registry import Choice, Spec
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.job import JobSpec


@dataclass(frozen=True)
class Shape:
    """What may stand at one place of the file."""

    type: Any
    """The annotation without its marks."""
    marks: tuple[Any, ...] = ()
    """Limits (``Ge``, ``MaxLen``, …) and our own markers."""
    field: FieldInfo | None = None
    """The field that is given, for its default and documentation; None inside lists."""

    @cached_property
    def alternatives(self) -> tuple[Shape, ...]:
        """The members of a union, null left out; a plain type is its own one alternative."""
        if get_origin(self.type) not in (Union, UnionType):
            return (self,)
        return tuple(shape_of(arg) for arg in get_args(self.type) if arg is not NoneType)

    @property
    def takes_null(self) -> bool:
        """Whether null is a value here."""
        return self.type in (NoneType, None) or NoneType in get_args(self.type)

    @cached_property
    def choices(self) -> Mapping[str, type[Choice]]:
        """The choices that may stand here by name; empty where something else may."""
        found = [alternative.type for alternative in self.alternatives]
        if len(found) < 2 or not all(isinstance(kind, type) and issubclass(kind, Choice) for kind in found):
            return {}
        return {choice.model_fields["name"].default: choice for choice in found}

    @property
    def default_name(self) -> str | None:
        """The name of the choice that stands here where the file is silent."""
        default = self.field.default if self.field else None
        return default.name if isinstance(default, Choice) else None

    @property
    def is_list(self) -> bool:
        return get_origin(self.type) is tuple

    @property
    def is_mapping(self) -> bool:
        """Whether the keys here are the user's own."""
        return get_origin(self.type) is Mapping

    def item(self, index: int) -> Shape:
        """What may stand at ``index`` of a list (of its last item, beyond a fixed length)."""
        items = get_args(self.type)
        return shape_of(items[min(index, len(items) - 1)] if items[-1] is not Ellipsis else items[0])

    def section(self, value: Any) -> type[Spec] | None:
        """The spec whose keys ``value`` holds; a choice is known by its name, or is the default one."""
        if choices := self.choices:
            name = value.get("name") if isinstance(value, Mapping) else value or self.default_name
            return choices.get(name) if isinstance(name, str) else None
        found = [a.type for a in self.alternatives if isinstance(a.type, type) and issubclass(a.type, Spec)]
        return found[0] if found else None

    def child(self, value: Any, key: str | int) -> Shape | None:
        """What may stand under ``key`` of ``value``; None where nothing is known of it."""
        if section := self.section(value):
            return field_shape(section, key) if isinstance(key, str) else None
        for shape in self.alternatives:
            if shape.is_list and isinstance(key, int):
                return shape.item(key)
            if shape.is_mapping and isinstance(key, str):
                return shape_of(get_args(shape.type)[1])
        return None


def shape_of(annotation: Any, field: FieldInfo | None = None) -> Shape:
    """The annotation with its marks laid flat."""
    marks: list[Any] = []
    if get_origin(annotation) is Annotated:
        annotation, *marks = get_args(annotation)
    flat = [mark for m in marks for mark in (m.metadata if isinstance(m, FieldInfo) else (m,))]
    return Shape(annotation, tuple(flat), field)


@lru_cache(maxsize=4096)
def field_shape(section: type[Spec], key: str) -> Shape | None:
    """What may stand under ``key`` of ``section``; None for an unknown key."""
    field = section.model_fields.get(key)
    return Shape(field.annotation, tuple(field.metadata), field) if field else None


JOB = Shape(JobSpec)


def shape_at(data: Any, path: KeyPath, start: Shape = JOB) -> Shape | None:
    """What may stand at ``path``, given the choices that ``data`` makes on the way."""
    shape: Shape | None = start
    for key in path:
        if shape is None:
            return None
        shape, data = shape.child(data, key), value_at(data, (key,))
    return shape


def value_at(data: Any, path: KeyPath) -> Any:
    """The value at ``path`` of nested mappings and lists; None where there is none."""
    for key in path:
        if isinstance(data, Mapping):
            data = data.get(key)
        elif isinstance(data, tuple) and isinstance(key, int) and 0 <= key < len(data):
            data = data[key]
        else:
            return None
    return data
