"""A mixture of Gaussians is scored as one wherever an ensemble stands beside another: compared runs, the soup."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_svc import pipeline
from ensemble_svc.comparing import compare
from ensemble_svc.evaluate.metrics import measure
from ensemble_svc.local import LocalExecutor
from ensemble_svc.scoring import together
from ensemble_svc.spec.job import EvaluateSpec
from ensemble_svc.spec.load import parse_job
from ensemble_svc.store.run import Run
from ensemble_svc.worth import worth

NAMES = ("rmse", "nll", "crps", "pinball", "width90", "coverage_gap")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Of numbers, with a soup."""
    folder = tmp_path_factory.mktemp("scores")
    job = parse_job(
        {
            "name": "numbers",
            "task": "regression",
            "data": {"source": "diabetes", "validation": 0.2, "test": 0.3, "preprocess": ["standardize"]},
            "model": {"name": "mlp", "hidden": [16]},
            "training": {"epochs": 4, "batch_size": 32, "optimizer": {"name": "adamw", "lr": 0.01}},
            "ensemble": {"members": 3},
            "aggregate": {"calibrate": "variance", "soup": {"name": "uniform", "barrier": 100}},
            "evaluate": {"metrics": NAMES, "resamples": 100},
            "compute": {"executor": "local", "measure": "off"},
        }
    )
    return pipeline.train(job, out=folder / "run", directory=folder, executor=LocalExecutor(retries=0))


def test_compared_runs_have_the_numbers_that_they_ended_with(run: Run) -> None:
    first, second = compare([run, run])["runs"]
    assert set(first["metrics"]) == set(NAMES)
    assert first["metrics"] == pytest.approx(run.metrics()["test"]["ensemble"])
    assert second["metrics"] == first["metrics"]


def test_the_soup_is_measured_against_the_mixture(run: Run) -> None:
    for split in ("validation", "test"):
        ensemble, soup = (run.metrics()[split][part] for part in ("ensemble", "soup"))
        for name in ("rmse", "nll", "crps", "pinball"):
            gain = soup["gain_over_ensemble"][name]["estimate"]
            assert gain == pytest.approx(ensemble[name] - soup["metrics"][name])


@given(seed=st.integers(0, 2**32 - 1), number=st.integers(1, 4), each=st.integers(2, 3))
@settings(max_examples=20, deadline=None)
def test_what_members_of_a_training_are_worth_needs_no_score_of_a_mixture(seed, number, each) -> None:
    draw = torch.Generator().manual_seed(seed)
    target = torch.randn(15, 1, generator=draw)
    members, trained = (
        {name: torch.randn(size, 15, 1, generator=draw) for name in ("mean", "log_variance")}
        for size in (number * each, number)
    )
    spec = EvaluateSpec(metrics=NAMES)
    found = worth("regression", members, trained, target, spec=spec, seed=0)
    assert found["mixture"].keys() == found["network"].keys() == {"rmse", "nll"}
    groups = [
        {name: value[k * each : (k + 1) * each] for name, value in members.items()} for k in range(number)
    ]
    scores = [
        measure("regression", together(own, target), target, names=("rmse", "nll"), bins=15) for own in groups
    ]
    for name in ("rmse", "nll"):
        assert found["mixture"][name] == pytest.approx(sum(one[name] for one in scores) / number)
    alone = worth("regression", members, trained, target, spec=EvaluateSpec(metrics=("crps",)), seed=0)
    assert "nll" in alone["mixture"]
