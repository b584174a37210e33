"""A job file is read into one value, and written back: every choice, every shipped job, every default."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_jobs import jobs, section

from ensemble_svc.errors import SpecError
from ensemble_svc.registry import Choice, Registry
from ensemble_svc.spec.anatomy import value_at
from ensemble_svc.spec.catalogue import REGISTRIES
from ensemble_svc.spec.contradictions import contradictions
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import dump_job, load_job, parse_job, parse_source
from ensemble_svc.spec.yaml import read

ROOT = Path(__file__).parent.parent
BASE = {"name": "x", "data": {"source": "digits"}}
PLACES = {
    "source": "data.source",
    "split": "data.split",
    "preprocess": "data.preprocess.0",
    "augment": "data.augment.0",
    "model": "model",
    "activation": "model.activation",
    "norm": "model.norm",
    "init": "model.init",
    "loss": "training.loss",
    "optimizer": "training.optimizer",
    "schedule": "training.schedule",
    "regularizer": "training.regularizers.0",
    "average": "training.average",
    "resample": "ensemble.resample",
    "algorithm": "search.algorithm",
    "scheduler": "search.scheduler",
    "tracker": "compute.track",
    "combine": "aggregate.combine",
    "select": "aggregate.select",
    "calibrate": "aggregate.calibrate",
    "soup": "aggregate.soup",
}
CHOICES = [
    pytest.param(registry, choice, id=f"{registry.kind}-{choice.model_fields['name'].default}")
    for registry in REGISTRIES
    for choice in registry
]


@pytest.mark.parametrize("path", sorted(ROOT.glob("jobs/**/*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_job_is_valid(path: Path) -> None:
    job = load_job(path)
    assert parse_job(job.model_dump(mode="json")) == job


@settings(max_examples=60)
@given(jobs())
def test_what_is_dumped_loads_back_equal(data: dict[str, Any]) -> None:
    """The law of the run folder's job.yaml, over whatever the schema allows."""
    job = JobSpec.model_validate(data)
    text = dump_job(job)
    again = JobSpec.model_validate({k: v for k, v in read(text)[0].items() if k != "schema_version"})
    assert again == job
    assert again.model_dump_json() == job.model_dump_json()
    if faults := contradictions(job):
        with pytest.raises(SpecError) as caught:
            parse_job(read(text)[0])
        assert [f.message for f in caught.value.faults] == [f.message for f in faults]
    else:
        assert parse_job(read(text)[0]) == job


@pytest.mark.parametrize("registry, choice", CHOICES)
@settings(max_examples=5)
@given(data=st.data())
def test_every_choice_can_be_written_as_a_mapping(
    registry: Registry[Choice], choice: type[Choice], data: st.DataObject
) -> None:
    drawn = data.draw(section(choice, only_given=True))
    job = JobSpec.model_validate(place(drawn, PLACES[registry.kind]))
    found = value_at(
        job.model_dump(), tuple(int(k) if k == "0" else k for k in PLACES[registry.kind].split("."))
    )
    assert choice.model_validate(found) == choice.model_validate(drawn)


@pytest.mark.parametrize("registry, choice", CHOICES)
def test_a_choice_is_its_bare_name_where_nothing_must_be_given(
    registry: Registry[Choice], choice: type[Choice]
) -> None:
    name = choice.model_fields["name"].default
    bare, mapped = (place(value, PLACES[registry.kind]) for value in (name, {"name": name}))
    if required := [key for key, field in choice.model_fields.items() if field.is_required()]:
        with pytest.raises(SpecError) as caught:
            parse_job(bare)
        assert {f"{PLACES[registry.kind]}.{key}" for key in required} <= {f.path for f in caught.value.faults}
    else:
        assert JobSpec.model_validate(bare) == JobSpec.model_validate(mapped)


@pytest.mark.parametrize("registry, choice", CHOICES)
def test_a_misspelt_choice_or_option_is_refused_with_the_right_one(
    registry: Registry[Choice], choice: type[Choice]
) -> None:
    where, name = PLACES[registry.kind], choice.model_fields["name"].default
    for value, path in ((f"{name}x", where), ({"name": f"{name}x"}, f"{where}.name")):
        with pytest.raises(SpecError) as caught:
            parse_job(place(value, where))
        (fault,) = caught.value.faults
        assert fault.path == path
        assert fault.message.startswith(
            f"{registry.kind} '{name}x' is unknown. Did you mean '{name}'? Known: "
        )
    for key in choice.model_fields:
        with pytest.raises(SpecError) as caught:
            parse_job(place({"name": name, f"{key}x": 1}, where))
        wrong = [f for f in caught.value.faults if f.path == f"{where}.{key}x"]
        assert len(wrong) == 1
        assert f"Did you mean '{key}'?" in wrong[0].message
        assert not any(f.path == f"{where}.{key}" for f in caught.value.faults), "told once, not twice"


def test_plain_data_with_lists_is_a_job_too() -> None:
    data = {
        **BASE,
        "data": {"source": "digits", "preprocess": ["standardize"]},
        "model": {"name": "mlp", "hidden": [3]},
    }
    assert parse_job(data).model_dump()["model"]["hidden"] == (3,)
    with pytest.raises(SpecError):
        parse_job({**BASE, 3: 4})


@pytest.mark.parametrize(
    "text, name",
    [("digits", "digits"), ("{name: csv, path: a, target: b}", "csv"), ("name: idx\npath: x", "idx")],
)
def test_a_source_is_read_alone(text: str, name: str) -> None:
    assert parse_source(text).name == name


def test_a_wrong_source_is_refused_alone() -> None:
    with pytest.raises(SpecError, match=r"source 'digitz' is unknown\. Did you mean 'digits'"):
        parse_source("digitz")
    with pytest.raises(SpecError, match=r"pth: unknown key\. Did you mean 'path'"):
        parse_source("{name: csv, pth: x, target: y}")
    with pytest.raises(SpecError, match="not valid YAML"):
        parse_source("{name: csv")


def test_reading_a_job_is_light() -> None:
    """``validate``, ``plan`` and ``--help`` must not wait for torch."""
    code = (
        "import sys, time; import ensemble_svc.spec.load, ensemble_svc.spec.catalogue\n"
        "heavy = {'torch', 'numpy', 'ray', 'lightning', 'pandas'} & set(sys.modules)\n"
        "print(sorted(heavy), time.process_time())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    heavy, seconds = done.stdout.rsplit(" ", 1)
    assert heavy == "[]"
    assert float(seconds) < 1.5


def place(value: Any, where: str) -> dict[str, Any]:
    """The smallest job with ``value`` at a place."""
    data: dict[str, Any] = {**BASE, "data": dict(BASE["data"])}
    keys = [key for key in where.split(".") if key != "0"]
    inner = data
    for key in keys[:-1]:
        inner = inner.setdefault(key, {})
    inner[keys[-1]] = (value,) if where.endswith(".0") else value
    if len(keys) > 1 and keys[0] == "model":
        data["model"]["name"] = "mlp"
    if keys[0] == "search":
        data["search"]["space"] = {"model.dropout": {"choice": (0.1, 0.2)}}
    return data
