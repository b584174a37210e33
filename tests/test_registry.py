"""Laws of every registry: names, documentation, defaults, shorthand."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from ensemble_svc.errors import UnknownChoice
from ensemble_svc.registry import Choice, Registry, Spec, named
from ensemble_svc.spec.anatomy import JOB, field_shape
from ensemble_svc.spec.catalogue import REGISTRIES

CHOICES = [
    pytest.param(registry, choice, id=f"{registry.kind}-{choice.model_fields['name'].default}")
    for registry in REGISTRIES
    for choice in registry
]


def test_every_choice_that_the_job_can_hold_is_in_a_registry() -> None:
    found: set[type] = set()

    def walk(spec: type[Spec]) -> None:
        for key in spec.model_fields:
            shape = field_shape(spec, key)
            places = [shape, *(a.item(0) for a in shape.alternatives if a.is_list)] if shape else []
            for place in places:
                found.update(place.choices.values())
                for inner in place.alternatives:
                    if isinstance(inner.type, type) and issubclass(inner.type, Spec):
                        walk(inner.type)

    walk(JOB.type)
    assert found == {choice for registry in REGISTRIES for choice in registry}


@pytest.mark.parametrize("registry, choice", CHOICES)
def test_a_choice_is_found_by_its_name_and_documents_every_option(
    registry: Registry[Choice], choice: type[Choice]
) -> None:
    name = choice.model_fields["name"].default
    assert registry.get(name) is choice
    assert (choice.__doc__ or "").strip()
    for key, field in choice.model_fields.items():
        assert key == "name" or (field.description or "").strip(), f"{name}.{key} has no documentation"


@pytest.mark.parametrize("registry, choice", CHOICES)
def test_a_misspelt_name_is_refused_with_the_right_one(
    registry: Registry[Choice], choice: type[Choice]
) -> None:
    name = choice.model_fields["name"].default
    with pytest.raises(UnknownChoice, match=f"Did you mean '{name}'"):
        registry.get(name.upper() + "_")


def test_defaults_are_allowed_values() -> None:
    complete = [
        choice
        for registry in REGISTRIES
        for choice in registry
        if not any(field.is_required() for field in choice.model_fields.values())
    ]
    assert len(complete) > 20
    for choice in complete:
        assert choice.model_validate(choice().model_dump()) == choice()


def test_a_registry_keeps_its_order_and_a_spec_is_frozen_strict_and_closed() -> None:
    for registry in REGISTRIES:
        assert len(registry) == len(list(registry)) == len(registry.by_name)
        choice = next(iter(registry))
        adapter = TypeAdapter(choice)
        for wrong in ({"name": "nothing"}, {"name": choice.model_fields["name"].default, "unknown": 1}):
            with pytest.raises(ValidationError):
                adapter.validate_python(wrong)


def test_only_text_is_a_bare_name() -> None:
    assert named("adamw") == {"name": "adamw"}
    assert named({"name": "x"}) == {"name": "x"}
    assert named(3) == 3
    assert named(None) is None
