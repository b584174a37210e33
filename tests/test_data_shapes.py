"""What the planner knows of a transformed row, and of the rows that a transform is fitted on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ensemble_svc.data.transform import Transform
from ensemble_svc.errors import DataError
from ensemble_svc.plan.executor import Resources
from ensemble_svc.planning import data_shape, make_plan, prepare
from ensemble_svc.spec.load import parse_job
from ensemble_svc.spec.preprocess import PREPROCESS

TABLE = "a,b,c,y\n" + "".join(f"{i % 7 or ''},{i * i % 11},{'uvw'[i % 3]},{i}\n" for i in range(60))
SOURCES = {
    "table": {"source": {"name": "csv", "path": "t.csv", "target": "y"}},
    "images": {"source": "digits"},
}
TWO_AXES = {"name": "decorrelate", "components": 2}


def job_of(kind: str, *steps: Any, **more: Any) -> Any:
    task = "regression" if kind == "table" else "classification"
    data = {**SOURCES[kind], "preprocess": steps}
    return parse_job({"name": "j", "data": data, "task": task, **more})


def chains() -> list[tuple[str, tuple[Any, ...]]]:
    table = [name for name in PREPROCESS.by_name if name not in ("per_channel_center", "impute")]
    images = [name for name in PREPROCESS.by_name if name != "impute"]
    zca = {"name": "whiten", "method": "zca"}
    found: list[tuple[str, tuple[Any, ...]]] = [("table", ("impute", name)) for name in table]
    found += [("images", (name,)) for name in images]
    found += [
        ("table", ({"name": "impute", "indicator": False}, TWO_AXES, "whiten")),
        ("table", ("impute", zca)),
    ]
    return [*found, ("images", (TWO_AXES, "whiten")), ("images", (zca, "center")), ("images", ())]


@pytest.mark.parametrize("kind, steps", chains(), ids=str)
def test_the_planners_shape_is_the_transforms(kind: str, steps: tuple[Any, ...], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    job = job_of(kind, *steps)
    prepared = prepare(job, tmp_path)
    assert data_shape(job, prepared).input_shape == Transform(prepared.schema, job.data.preprocess).out_shape


def test_a_members_own_rows_must_tell_its_covariance(tmp_path: Path) -> None:
    """A small share of the rows, drawn for a member, is fewer than the pixels."""
    resources = Resources(cpus=2)
    small = {"members": 2, "resample": {"name": "subsample", "fraction": 0.04}}
    job = job_of("images", "whiten", ensemble=small)
    with pytest.raises(
        DataError, match=r"different rows of member 0 cannot tell the covariance of 64 pixels"
    ):
        make_plan(job, prepare(job, tmp_path), resources)
    shrunk = job_of("images", {"name": "whiten", "shrinkage": "auto"}, ensemble=small)
    assert make_plan(shrunk, prepare(shrunk, tmp_path), resources)
