"""Bias and variance over trainings: exact sums, right means over draws, and what runs say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_svc import pipeline
from ensemble_svc.aggregate.pooling import geometric
from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.decompose import brier, decompose, log_loss, squares
from ensemble_svc.evaluate.metrics import measure
from ensemble_svc.evaluate.selective import aurc, excess_aurc
from ensemble_svc.local import LocalExecutor
from ensemble_svc.report.decision import decided
from ensemble_svc.spec.load import parse_job

seeds, sizes = st.integers(0, 2**32 - 1), st.integers(2, 8)


def classes(
    seed: int, num_members: int, rows: int = 13, spread: float = 2.0
) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, 4, generator=draw, dtype=torch.float64)
    own = logits + spread * torch.randn(num_members, rows, 4, generator=draw, dtype=torch.float64)
    return own.log_softmax(2), torch.randint(4, (rows,), generator=draw)


@given(seeds, sizes)
@settings(max_examples=50)
def test_the_parts_add_up_and_the_error_is_a_single_members(seed: int, num_members: int) -> None:
    log_probs, target = classes(seed, num_members)
    each = [measure("classification", {"log_probs": one}, target) for one in log_probs]
    for name, parts in (("brier", brier(log_probs, target)), ("nll", log_loss(log_probs, target))):
        assert parts is not None
        assert parts.error == pytest.approx(np.mean([m[name] for m in each]))
        assert parts.bias + parts.variance == pytest.approx(parts.error)
        assert parts.variance >= 0
    mean = torch.randn(num_members, 9, 2, generator=torch.Generator().manual_seed(seed))
    target_ND = torch.randn(9, 2, generator=torch.Generator().manual_seed(seed + 1))
    found = squares(mean, target_ND)
    assert found.error == pytest.approx((mean - target_ND).double().square().mean().item())
    assert found.bias + found.variance == pytest.approx(found.error)
    plain = mean.double().var(0, correction=1).mean().item()
    assert found.variance == pytest.approx(plain)


@given(seeds, st.integers(3, 8))
@settings(max_examples=50)
def test_the_log_losss_variance_is_the_divergence_from_the_geometric_mean(
    seed: int, num_members: int
) -> None:
    """Its jackknife, written out: no less than the divergence itself, which is the loss above the centre's."""
    log_probs, target = classes(seed, num_members)

    def plain(some: torch.Tensor) -> float:
        weights = torch.full((len(some),), 1 / len(some), dtype=torch.float64)
        centre = geometric(some, weights).double()
        return (centre.exp() * (centre - some)).sum(2).mean().item()

    whole = plain(log_probs)
    rest = [plain(log_probs[[j for j in range(num_members) if j != k]]) for k in range(num_members)]
    found = log_loss(log_probs, target)
    assert found is not None
    assert found.variance == pytest.approx(num_members * whole - (num_members - 1) * np.mean(rest))
    assert found.variance >= whole >= 0
    weights = torch.full((num_members,), 1 / num_members, dtype=torch.float64)
    centre = measure("classification", {"log_probs": geometric(log_probs, weights)}, target)["nll"]
    assert found.error == pytest.approx(centre + whole)


def test_over_draws_the_parts_of_few_members_are_those_of_many() -> None:
    """Of squares exactly: the true bias and variance of a made-up learner; plain parts of 3 would be off by a third."""
    draw = torch.Generator().manual_seed(0)
    true, noise, variance = torch.randn(200, 1, generator=draw), 0.5, 0.8
    found = []
    for _ in range(400):
        target = true + noise * torch.randn(200, 1, generator=draw)
        own = true + 0.3 + variance**0.5 * torch.randn(3, 200, 1, generator=draw)
        found.append(squares(own, target))
    assert np.mean([f.variance for f in found]) == pytest.approx(variance, abs=0.01)
    assert np.mean([f.bias for f in found]) == pytest.approx(0.3**2 + noise**2, abs=0.01)


def test_of_the_log_loss_few_members_come_near_to_many() -> None:
    """The jackknife of 4 draws is much nearer to what 400 say than the plain parts of 4 are."""
    log_probs, target = classes(0, 400, rows=300, spread=1.0)
    many = log_loss(log_probs, target)
    assert many is not None
    few = [log_loss(log_probs[k : k + 4], target) for k in range(0, 400, 4)]
    mean = np.mean([f.variance for f in few if f])
    plain = np.mean([-torch.logsumexp(log_probs[k : k + 4].mean(0), 1).mean() for k in range(0, 400, 4)])
    assert abs(mean - many.variance) < abs(plain - many.variance) / 4


@given(seeds)
@settings(max_examples=20)
def test_members_that_agree_have_no_variance(seed: int) -> None:
    log_probs, target = classes(seed, 1)
    same = log_probs.expand(5, -1, -1)
    for parts in decompose("classification", {"log_probs": same}, target).values():
        assert parts["variance"] == pytest.approx(0, abs=1e-12)
        assert parts["bias"] == pytest.approx(parts["error"])


def test_what_cannot_be_split_is_refused_or_left_out() -> None:
    log_probs, target = classes(0, 3)
    with pytest.raises(EnsembleError, match="two members"):
        brier(log_probs[:1], target)
    with pytest.raises(EnsembleError, match="shape"):
        squares(torch.zeros(3, 4, 1), torch.zeros(5, 1))
    certain = log_probs.clone()
    certain[0, 0] = torch.tensor([0.0, -torch.inf, -torch.inf, -torch.inf])
    assert log_loss(certain, target) is None
    assert decompose("classification", {"log_probs": certain}, target).keys() == {"brier"}


@given(seeds)
@settings(max_examples=20)
def test_excess_aurc_is_the_area_above_the_perfect_ranking(seed: int) -> None:
    log_probs, target = classes(seed, 1, rows=40)
    confidence, said = log_probs[0].exp().max(1)
    wrong = (said != target).double()
    found = measure("classification", {"log_probs": log_probs[0]}, target, names=["aurc", "excess_aurc"])
    assert found["excess_aurc"] == pytest.approx(excess_aurc(wrong, -confidence))
    perfect = torch.cat([torch.zeros(int((wrong == 0).sum())), torch.ones(int(wrong.sum()))])
    risk = perfect.cumsum(0) / torch.arange(1, 41)
    assert found["excess_aurc"] == pytest.approx(found["aurc"] - risk.mean().item(), abs=1e-6)
    assert found["aurc"] == pytest.approx(aurc(wrong, -confidence))


BASE: dict[str, Any] = {
    "name": "split",
    "data": {"source": "diabetes", "preprocess": ["standardize"], "validation": 0.2, "test": 0.3},
    "task": "regression",
    "model": {"name": "mlp", "hidden": [8]},
    "training": {"epochs": 2, "batch_size": 64},
    "ensemble": {"members": 4, "resample": "bootstrap"},
    "evaluate": {"resamples": 100},
    "compute": {"executor": "local", "measure": "off"},
}


def train(out: Path, **changes: Any) -> Any:
    job = parse_job(BASE | changes)
    return pipeline.train(job, out=out, directory=Path.cwd(), executor=LocalExecutor(retries=0))


def test_a_run_holds_and_tells_the_parts_of_all_members(tmp_path: Path) -> None:
    run = train(tmp_path / "run", aggregate={"select": {"name": "top_k", "k": 2}})
    split = run.predictions("test")
    expected = decompose("regression", {"mean": split["mean"]}, split["target"])
    assert run.metrics()["test"]["decomposition"] == {**expected, "members": 4}
    said = [s for s in decided(run.manifest(), run.metrics()) if s.startswith("Variance over")]
    assert len(said) == 1
    assert "4 trainings" in said[0]


def test_trainings_from_one_start_are_told_as_such(tmp_path: Path) -> None:
    """Their variance is that given the start, less than that over all starts."""
    run = train(tmp_path / "run", ensemble={"members": 2, "resample": "bootstrap", "share_init": True})
    assert run.metrics()["test"]["decomposition"]["one_start"] is True
    (said,) = (s for s in decided(run.manifest(), run.metrics()) if s.startswith("Variance over"))
    assert said.startswith("Variance over the 2 trainings from one start makes")


@pytest.mark.parametrize(
    "changes",
    [
        {"ensemble": {"members": 1}},
        {"ensemble": {"members": 4, "vary": {"training.optimizer.lr": [0.01, 0.001]}}},
        {"ensemble": {"members": 2, "mc_samples": 3}, "model": {"name": "mlp", "dropout": 0.1}},
    ],
    ids=["one", "several recipes", "virtual"],
)
def test_what_is_no_draw_of_one_training_is_not_split(changes: dict[str, Any], tmp_path: Path) -> None:
    assert "decomposition" not in train(tmp_path / "run", **changes).metrics()["test"]
