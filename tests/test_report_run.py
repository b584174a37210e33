"""A report of a real run: trained, sealed, measured, read back and written."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from ensemble_svc import pipeline
from ensemble_svc.errors import CorruptArtifact
from ensemble_svc.local import LocalExecutor
from ensemble_svc.report.html import write_report
from ensemble_svc.report.view import view_of
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.run import Run


@pytest.fixture(scope="module", params=["breast_cancer", "diabetes"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small finished run."""
    folder = tmp_path_factory.mktemp("report")
    job = JobSpec.model_validate(
        {
            "name": "small",
            "task": "regression" if request.param == "diabetes" else "classification",
            "data": {"source": {"name": request.param}},
            "model": {"name": "mlp", "hidden": (8,)},
            "training": {"epochs": 2},
            "ensemble": {"members": 3},
            "compute": {"executor": "local"},
        }
    )
    return pipeline.train(job, out=folder / "run", directory=folder, executor=LocalExecutor(0))


def test_the_view_holds_what_the_run_holds(run: Run) -> None:
    view = view_of(run)
    assert view.split == "test"
    assert len(view.chosen) == 3
    assert set(view.histories) == set(view.chosen)
    assert all(len(columns["epoch"]) == 2 and "val_nll" in columns for columns in view.histories.values())
    assert view.exhibits["split"] == "test"
    assert view.exhibits["rows"] == view.summary["rows"]
    assert len(view.shown["pairs"]["members"]) == 3
    assert "name: small" in view.job_text


def test_the_best_member_is_the_one_that_validation_chose(run: Run) -> None:
    view = view_of(run)
    assert view.best is not None
    scores = [member["metrics"]["validation"]["nll"] for member in view.members]
    assert scores[view.best] == min(scores)
    gain = view.summary["gain"]["over_best_member"]["nll"]["estimate"]
    assert gain == pytest.approx(
        view.summary["members"]["each"][view.best]["nll"] - view.summary["ensemble"]["nll"]
    )


def test_writing_again_gives_the_bytes_that_the_run_recorded(run: Run) -> None:
    before = (run.path / "report.html").read_bytes()
    assert write_report(run) == sha256(before).hexdigest() == run.manifest()["files"]["report.html"]


def test_a_damaged_history_is_named(run: Run) -> None:
    path: Path = run.path / "members" / view_of(run).chosen[0] / "history.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(CorruptArtifact, match=r"history\.parquet"):
            view_of(run)
    finally:
        path.write_bytes(whole)
