"""The catalogue of choices and the JSON schema say what the reader does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator
from spec_jobs import jobs

from ensemble_svc.spec.anatomy import JOB
from ensemble_svc.spec.catalogue import REGISTRIES, choices, job_schema
from ensemble_svc.spec.handbook import page
from ensemble_svc.spec.yaml import read

ROOT = Path(__file__).parent.parent
VALIDATOR = Draft202012Validator(job_schema())
SHORT = {"name": "x", "data": {"source": "digits"}}


def plain(data: Any) -> Any:
    """As JSON has it."""
    return json.loads(json.dumps(data))


def test_the_schema_is_a_schema_and_documents_every_key() -> None:
    schema = job_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"].startswith("https://json-schema.org/")
    for name, definition in schema["$defs"].items():
        assert definition.get("description"), name
        for key, value in definition["properties"].items():
            assert value.get("description") or "$ref" in value or key == "name", f"{name}.{key}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("jobs/**/*.yaml")), ids=lambda p: p.stem)
def test_shipped_jobs_keep_the_schema(path: Path) -> None:
    assert list(VALIDATOR.iter_errors(plain(read(path)[0]))) == []


@settings(max_examples=60)
@given(jobs())
def test_what_the_reader_takes_the_schema_takes(data: dict[str, Any]) -> None:
    assert list(VALIDATOR.iter_errors(plain(data))) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {**SHORT, "unknown": 1},
        {"data": SHORT["data"]},
        {**SHORT, "seed": -1},
        {**SHORT, "schema_version": 2},
        {**SHORT, "training": {"optimizer": "adamm"}},
        {**SHORT, "training": {"optimizer": {"lr": 1}}},
        {**SHORT, "training": {"optimizer": {"name": "adamw", "momentum": 1}}},
        {"name": "x", "data": {"source": "csv"}},
        {"name": "x", "data": {"source": {"name": "csv"}}},
    ],
)
def test_what_the_reader_refuses_the_schema_refuses(wrong: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(plain(wrong))
    assert VALIDATOR.is_valid(plain(SHORT))


def test_the_catalogue_lists_every_choice_with_words() -> None:
    found = choices()
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(found, allow_nan=False))
    assert list(found) == [registry.kind for registry in REGISTRIES]
    for registry in REGISTRIES:
        entries = found[registry.kind]
        assert [entry["name"] for entry in entries] == list(registry.by_name)
        for entry, choice in zip(entries, registry, strict=True):
            assert entry["doc"]
            assert [option["name"] for option in entry["options"]] == [
                k for k in choice.model_fields if k != "name"
            ]
            for option in entry["options"]:
                assert option["doc"]
                assert option["type"]
                assert option["required"] == choice.model_fields[option["name"]].is_required()


def test_types_are_in_words() -> None:
    def words(kind: str, name: str, option: str) -> tuple[str, Any]:
        (entry,) = [entry for entry in choices()[kind] if entry["name"] == name]
        (found,) = [o for o in entry["options"] if o["name"] == option]
        return found["type"], found["default"]

    assert words("optimizer", "adamw", "lr") == ("a number above 0, or auto", 0.001)
    assert words("optimizer", "sgd", "nesterov") == ("true or false", False)
    assert words("optimizer", "adamw", "betas") == (
        "a list of 2 items, each a number of at least 0 and below 1",
        [0.9, 0.999],
    )
    assert words("schedule", "cosine", "warmup") == ("a whole number of at least 0", 0)
    assert words("source", "csv", "target") == ("a text, or a list, each a text", None)
    assert words("source", "csv", "id") == ("a text, or null", None)
    assert words("source", "csv", "separator") == ("one character", ",")
    assert words("source", "python", "options")[0] == "a mapping of names to any value"
    assert words("model", "resnet", "norm_place") == ("one of before, after", "before")
    assert words("model", "resnet", "norm")[1] == "batch"


def test_the_root_of_the_schema_is_the_job() -> None:
    assert set(job_schema()["properties"]) == {*JOB.type.model_fields, "schema_version"}


def test_the_page_of_choices_is_that_of_the_choices() -> None:
    """``ensemble-svc choices --markdown > docs/choices.md`` makes it anew."""
    assert (ROOT / "docs" / "choices.md").read_text() == page()
