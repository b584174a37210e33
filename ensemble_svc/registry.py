"""Choice and Registry: the one extension mechanism.

A *choice* is one of several ways to do a thing, written ``name`` or ``{name: …, option: …}`` in a
job file. Its class is the YAML keys, their validation and their documentation; the room that owns
the thing builds it (a ``match`` over the union, which the type checker proves exhaustive).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from ensemble_svc.errors import UnknownChoice


class Spec(BaseModel):
    """Frozen, strict, and closed to unknown keys; the text under a field is its documentation."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=False,
    )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The value that ``model_dump_json`` wrote.

        Raises:
            pydantic.ValidationError: JSON of something else.
        """
        return cls.model_validate(frozen(json.loads(text)))


def frozen(value: Any) -> Any:
    """JSON or YAML data with its lists as tuples, the form that strict specifications take."""
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


class Choice(Spec):
    """One named alternative; subclasses give ``name: Literal["…"] = "…"`` and their options."""

    is_structural: ClassVar[bool] = False
    """Whether it gives its member other parts, so that it keeps packs apart even under an elementwise option."""

    name: str


C = TypeVar("C", bound=Choice)


class Elementwise:
    """Marks an option that may differ between the members of one pack.

    Such an option acts on each weight, unit or row apart, so K values of it become a vector that
    broadcasts over the stack.
    """


class Shorthand:
    """Lets a choice be written as its bare name, and says so in the JSON schema."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(named, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        inner = handler(schema)
        by_name = inner.get("discriminator", {}).get("mapping", {})
        bare = [n for n in by_name if not handler.resolve_ref_schema({"$ref": by_name[n]}).get("required")]
        return {"anyOf": [{"type": "string", "enum": sorted(bare)}, inner]} if bare else inner


def named(value: Any) -> Any:
    """``"adamw"`` → ``{"name": "adamw"}``; anything else as it is."""
    return {"name": value} if isinstance(value, str) else value


class Registry(Generic[C]):
    """The choices of one kind, in the order a reader should meet them."""

    def __init__(self, kind: str, union: Any) -> None:
        if get_origin(union) is Annotated:
            union = get_args(union)[0]
        self.kind = kind
        members: tuple[type[C], ...] = get_args(union) or (union,)
        self.by_name: Mapping[str, type[C]] = {c.model_fields["name"].default: c for c in members}

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.by_name.values())

    def __len__(self) -> int:
        return len(self.by_name)

    def get(self, name: str) -> type[C]:
        """The choice called ``name``.

        Raises:
            UnknownChoice: with the nearest right name.
        """
        if name not in self.by_name:
            raise UnknownChoice(self.kind, name, self.by_name)
        return self.by_name[name]
