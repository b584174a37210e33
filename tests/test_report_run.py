"""A report of a real run: trained, sealed, measured, read back and written."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from ensemble_svc import pipeline
from ensemble_svc.aggregate.decision import Decision, apply
from ensemble_svc.errors import CorruptArtifact
from ensemble_svc.evaluate.selective import aurc
from ensemble_svc.local import LocalExecutor
from ensemble_svc.planning import prepare
from ensemble_svc.report.html import write_report
from ensemble_svc.report.view import view_of
from ensemble_svc.reselecting import reselect
from ensemble_svc.spec.aggregate import AggregateSpec
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.manifest import decision_of
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


def test_what_is_shown_is_what_the_predictions_of_the_folder_say(run: Run) -> None:
    view, held = view_of(run), run.predictions("test")
    decision = Decision.from_json(json.dumps(decision_of(run.manifest())))
    if "log_probs" in held:
        confidence_N, said_N = apply(decision, held)["log_probs"].double().max(dim=1)
        assert view.shown["risk"]["aurc"] == pytest.approx(
            aurc((said_N != held["target"]).double(), -confidence_N)
        )
        assert np.trace(view.shown["confusion"]["counts"]) == (said_N == held["target"]).sum()
    else:
        mean_NT = apply(decision, held)["mean"]
        np.testing.assert_allclose(view.shown["scatter"][0]["mean"], mean_NT[:, 0], rtol=1e-5)
    for some in view.shown["rows"].values():
        for fact in some:
            truth = fact["truth"] if isinstance(fact["truth"], list) else [fact["truth"]]
            np.testing.assert_allclose(truth, held["target"][fact["position"]].reshape(-1), rtol=1e-5)
    shown = view.exhibits["inputs"]
    assert shown["ids"] == held["row"][shown["positions"]].tolist()
    data = prepare(run.job(), run.path).dataset
    column = data.features.index(shown["features"][0])
    values = [line[0] for line in shown["values"]]
    np.testing.assert_allclose(values, data.x[shown["ids"], column], rtol=1e-4)


def test_another_choice_of_members_is_shown_anew(run: Run, tmp_path: Path) -> None:
    copy = Run(shutil.copytree(run.path, tmp_path / "copy"))
    job = copy.job().model_copy(update={"aggregate": AggregateSpec.model_validate({"select": "greedy"})})
    decision = reselect(copy, job, directory=tmp_path)
    view = view_of(copy)
    shown = (view.shown.get("pairs") or {"members": decision.members})["members"]
    assert sorted(shown) == sorted(decision.members)
    assert view.exhibits["inputs"]["positions"]
    assert len(view.candidates) == 3


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
