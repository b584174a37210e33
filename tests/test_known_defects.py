"""Defects found in other libraries for ensembles; those that other files test already are listed in docs/laws.md."""

from __future__ import annotations

import copy
import shutil
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensemble_svc import pipeline
from ensemble_svc.aggregate.averaging import average_states, last_n
from ensemble_svc.aggregate.calibration.temperature import fit_after, fit_before
from ensemble_svc.aggregate.likelihood import log_likelihood
from ensemble_svc.aggregate.pools import LikelihoodPool, accuracy_pool
from ensemble_svc.aggregate.predictions import average, mix_gaussians
from ensemble_svc.aggregate.selection import greedy
from ensemble_svc.errors import OtherJob
from ensemble_svc.evaluate.metrics import measure
from ensemble_svc.local import LocalExecutor
from ensemble_svc.plan.executor import Resources
from ensemble_svc.planning import make_plan, prepare
from ensemble_svc.predictor import Ensemble
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import parse_job
from ensemble_svc.store.run import Run
from ensemble_svc.train.assemble import assemble


def job_of(**changes: Any) -> JobSpec:
    plain: dict[str, Any] = {
        "name": "defects",
        "data": {
            "source": {"name": "npz", "path": "rows.npz", "x": "x", "y": "y"},
            "validation": 0.2,
            "test": 0.2,
        },
        "model": {"name": "mlp", "hidden": [8]},
        "training": {"epochs": 2, "batch_size": 32},
        "ensemble": {"members": 3},
        "evaluate": {"resamples": 100},
        "compute": {"executor": "local", "measure": "off"},
    }
    return parse_job(plain | changes)


def rows_in(folder: Path, *, changed: bool = False) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    y[0] = 1 - y[0] if changed else y[0]
    np.savez(folder / "rows.npz", x=x, y=y)
    return folder


def train(job: JobSpec, folder: Path) -> Run:
    return pipeline.train(job, out=folder / "run", directory=folder, executor=LocalExecutor(retries=0))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = rows_in(tmp_path_factory.mktemp("defects"))
    train(job_of(), folder)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def members_of_skill(*skills: float) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    target = torch.randint(3, (400,), generator=draw)
    truth = torch.nn.functional.one_hot(target, 3)
    logits = [torch.randn(400, 3, generator=draw, dtype=torch.float64) + skill * truth for skill in skills]
    return torch.stack(logits).log_softmax(-1), target


def test_a_mean_of_checkpoints_is_no_running_half() -> None:
    """1, 2, 3, 4 is 2.5; averaging each with the mean so far is 3.125."""
    states = [{"w": torch.tensor([value])} for value in (1.0, 2.0, 3.0, 4.0)]
    assert average_states(states)["w"].item() == 2.5
    assert last_n(states, 4)["w"].item() == 2.5


@pytest.mark.parametrize("fit", [fit_after, fit_before], ids=["after", "before"])
def test_a_temperature_can_be_fitted_to_an_ensemble_and_makes_it_likelier(fit) -> None:
    log_probs, target = members_of_skill(0.5, 0.5, 0.5)
    sharp = (6 * log_probs).log_softmax(-1)
    mixture = average(sharp)
    found = fit(mixture if fit is fit_after else sharp, target)
    before, after = (
        measure("classification", {"log_probs": said}, target)["nll"] for said in (mixture, found.pool(sharp))
    )
    assert found.value > 1
    assert after < before


def test_gaussians_that_disagree_mix_to_their_distance() -> None:
    mean, log_variance = mix_gaussians(torch.tensor([[[0.0]], [[10.0]]]), torch.zeros(2, 1, 1))
    assert mean.item() == 5
    assert log_variance.exp().sqrt().item() == pytest.approx(26**0.5)


def test_greedy_weights_are_not_those_of_everyone() -> None:
    log_probs, target = members_of_skill(2.0, 0.0, 1.0, 0.0)
    found = greedy(LikelihoodPool(log_likelihood({"log_probs": log_probs}, target)), 20)
    assert found.weights[0] > max(found.weights[1:])
    assert found.weights[1] < 0.25
    assert len({*found.weights}) > 1


def test_greedy_by_accuracy_takes_the_most_accurate_first() -> None:
    log_probs, target = members_of_skill(0.0, 3.0, 1.0)
    found = greedy(accuracy_pool(log_probs, target), 10)
    accuracy = (log_probs.argmax(-1) == target).double().mean(1)
    assert found.picks[0] == 1
    assert found.scores[-1] >= accuracy.max()


def test_no_two_members_start_alike(trained: Path) -> None:
    job = job_of()
    prepared = prepare(job, trained)
    plan = make_plan(job, prepared, Resources(cpus=1))
    starts = [assemble(member, prepared.schema).state_dict() for member in plan.members]
    for one, other in combinations(starts, 2):
        for name, value in one.items():
            assert not name.endswith("weight") or not torch.equal(value, other[name])


def test_what_was_selected_is_reported_on_rows_that_did_not_select_it(tmp_path: Path) -> None:
    run = train(job_of(aggregate={"select": "greedy"}), rows_in(tmp_path))
    chosen, held, told = (run.manifest()["ensemble"], *(run.predictions(n) for n in ("validation", "test")))
    assert not {*held["row"].tolist()} & {*told["row"].tolist()}
    assert run.metrics()["test"]["rows"] == len(told["target"])
    assert chosen["rows"] == "validation"
    assert chosen["num_rows"] == len(held["target"])
    score = run.metrics()["validation"]["ensemble"]["nll"]
    assert chosen["scores"][-1] == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({}, True),
        ({"data": {"source": {"name": "npz", "path": "rows.npz", "x": "x", "y": "y"}, "test": 0.2}}, False),
    ],
    ids=["one other label", "another split"],
)
def test_members_do_not_join_from_other_rows(folder: Path, changes: dict[str, Any], changed: bool) -> None:
    before = (folder / "run" / "manifest.json").read_bytes()
    rows_in(folder, changed=changed)
    with pytest.raises(OtherJob):
        train(job_of(**{"ensemble": {"members": 5}, **changes}), folder)
    assert (folder / "run" / "manifest.json").read_bytes() == before


def test_the_weights_are_read_once_however_many_rows_are_predicted(folder: Path) -> None:
    """The run's folder is gone by then."""
    ensemble = Ensemble.load(folder / "run")
    expected = copy.deepcopy(ensemble)
    shutil.rmtree(folder / "run")
    x = np.random.default_rng(1).normal(size=(9000, 4)).astype(np.float32)
    whole = ensemble.predict(x).mean
    parts = [expected.predict(piece).mean for piece in np.array_split(x, 7)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-7)


def test_each_defect_has_one_test() -> None:
    """The list in docs/laws.md names each test once, and each is there."""
    page = (Path(__file__).parents[1] / "docs" / "laws.md").read_text()
    listed = [
        line.split("`")[1] for line in page.split("## Known defects")[1].splitlines() if line.startswith("- ")
    ]
    assert len(listed) == 10
    assert max(Counter(listed).values()) == 1
    for name in listed:
        file, _, test = name.partition("::")
        assert f"def {test}(" in (Path(__file__).parents[1] / file).read_text()
