"""Every choice with its documentation, for people (``choices``) and for editors (``job_schema``)."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import cleandoc
from typing import Any, Final

from pydantic import TypeAdapter

from ensemble_svc.registry import Choice, Registry
from ensemble_svc.spec.activations import ACTIVATIONS
from ensemble_svc.spec.aggregate import CALIBRATES, COMBINES, SELECTS, SOUPS
from ensemble_svc.spec.anatomy import field_shape
from ensemble_svc.spec.askers import ALGORITHMS
from ensemble_svc.spec.augment import AUGMENT
from ensemble_svc.spec.averages import AVERAGES
from ensemble_svc.spec.data import SOURCES, SPLITS
from ensemble_svc.spec.inits import INITS
from ensemble_svc.spec.job import RESAMPLES, SCHEMA_VERSION, JobSpec
from ensemble_svc.spec.losses import LOSSES
from ensemble_svc.spec.model import MODELS
from ensemble_svc.spec.norms import NORMS
from ensemble_svc.spec.optimizers import OPTIMIZERS
from ensemble_svc.spec.preprocess import PREPROCESS
from ensemble_svc.spec.regularizers import REGULARIZERS
from ensemble_svc.spec.schedulers import SCHEDULERS
from ensemble_svc.spec.schedules import SCHEDULES
from ensemble_svc.spec.trackers import TRACKERS
from ensemble_svc.spec.wording import allowed

REGISTRIES: Final[tuple[Registry[Choice], ...]] = (
    SOURCES,
    SPLITS,
    PREPROCESS,
    AUGMENT,
    MODELS,
    ACTIVATIONS,
    NORMS,
    INITS,
    LOSSES,
    OPTIMIZERS,
    SCHEDULES,
    REGULARIZERS,
    AVERAGES,
    RESAMPLES,
    ALGORITHMS,
    SCHEDULERS,
    COMBINES,
    SELECTS,
    CALIBRATES,
    SOUPS,
    TRACKERS,
)
"""All registries, in the order of the job file."""


def choices() -> dict[str, list[dict[str, Any]]]:
    """The choices of each kind: ``{kind: [{name, doc, options: [{name, type, required, default, doc}]}]}``.

    Everything in it can be written as JSON.
    """
    return {registry.kind: [_described(choice) for choice in registry] for registry in REGISTRIES}


def kind_of(by_name: Mapping[str, type[Choice]]) -> str:
    """The kind whose choices these are."""
    for registry in REGISTRIES:
        if dict(registry.by_name) == dict(by_name):
            return registry.kind
    return "choice"


def job_schema() -> dict[str, Any]:
    """The JSON schema of a job file (draft 2020-12), as editors read it.

    A choice may be its bare name where none of its options must be given. Rules between keys are
    not in it: ``validate`` knows them.
    """
    schema = JobSpec.model_json_schema(mode="validation")
    for registry in REGISTRIES:
        for choice in registry:
            _require_name(schema["$defs"].get(choice.__name__, {}))
    schema["properties"]["schema_version"] = {
        "const": SCHEMA_VERSION,
        "description": "Version of the job file's format.",
    }
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **schema, "title": "ensemble_svc job"}


def _require_name(definition: dict[str, Any]) -> None:
    """In a mapping the name tells which choice it is, so it must be given although it is constant."""
    definition["required"] = ["name", *(key for key in definition.get("required", ()) if key != "name")]


def _described(choice: type[Choice]) -> dict[str, Any]:
    options = [_option(choice, key) for key in choice.model_fields if key != "name"]
    name = choice.model_fields["name"].default
    return {"name": name, "doc": cleandoc(choice.__doc__ or ""), "options": options}


def _option(choice: type[Choice], key: str) -> dict[str, Any]:
    field, shape = choice.model_fields[key], field_shape(choice, key)
    return {
        "name": key,
        "type": allowed(shape) if shape else "any value",
        "required": field.is_required(),
        "default": None if field.is_required() else _written(field.default),
        "doc": cleandoc(field.description or ""),
    }


def _written(value: Any) -> Any:
    """A default as one would write it: a choice without options of its own by its name."""
    if isinstance(value, Choice) and not value.model_dump(exclude_defaults=True):
        return value.name
    return TypeAdapter(Any).dump_python(value, mode="json")
