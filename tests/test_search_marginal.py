"""What a trial adds to the ensemble of the others: against brute force, and as what a search learns from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_svc import pipeline
from ensemble_svc.aggregate.marginal import marginal_gains
from ensemble_svc.aggregate.pools import LikelihoodPool, Pool
from ensemble_svc.aggregate.selection import greedy
from ensemble_svc.errors import SpecError
from ensemble_svc.local import LocalExecutor
from ensemble_svc.search.asking import ask
from ensemble_svc.search.telling import pool_of_trials
from ensemble_svc.spec.load import parse_job
from ensemble_svc.spec.yaml import frozen
from ensemble_svc.store.run import Run

RATE, DROP = "training.optimizer.lr", "model.dropout"
PICKS = 8


def members(seed: int, number: int, rows: int = 12, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Log probabilities [K, N, C] and targets [N]."""
    generator = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(number, rows, classes, generator=generator).mul(2).log_softmax(2).double()
    return log_probs, torch.randint(classes, (rows,), generator=generator)


def score(pool: Pool, picks: list[int]) -> float:
    total = pool.empty()
    for pick in picks[:-1]:
        total = pool.add(total, pick)
    return pool.trial(total, len(picks) - 1, picks[-1:])[0]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 7), st.sampled_from(["nll", "accuracy"]))
def test_a_gain_is_what_a_member_adds_to_the_greedy_ensemble_of_the_others(
    seed: int, number: int, metric: Any
) -> None:
    log_probs, target = members(seed, number)

    def pool_of(those: list[int]) -> Pool:
        return pool_of_trials(metric, [{"log_probs": log_probs[k : k + 1]} for k in those], target)

    pool, sign = pool_of(list(range(number))), 1 if metric == "accuracy" else -1
    for k, gain in enumerate(marginal_gains(pool, PICKS)):
        others = [i for i in range(number) if i != k]
        chosen = [others[i] for i in greedy(pool_of(others), PICKS).picks]
        assert gain == pytest.approx(sign * (score(pool, [*chosen, k]) - score(pool, chosen)), abs=1e-9)


@given(st.integers(0, 10**6))
def test_one_that_says_what_the_ensemble_says_adds_nothing(seed: int) -> None:
    log_probs, target = members(seed, 1)
    twice = [{"log_probs": log_probs}, {"log_probs": log_probs}]
    assert marginal_gains(pool_of_trials("nll", twice, target), PICKS) == pytest.approx([0.0, 0.0], abs=1e-9)
    (alone,) = marginal_gains(pool_of_trials("nll", twice[:1], target), PICKS)
    assert alone == pytest.approx(log_probs[0].gather(1, target[:, None]).mean().item())


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_a_trial_of_several_seeds_is_their_mixture(seed: int, seeds: int) -> None:
    log_probs, target = members(seed, seeds)
    pool = pool_of_trials("nll", [{"log_probs": log_probs}], target)
    assert isinstance(pool, LikelihoodPool)
    mixed = log_probs.exp().mean(0).log().gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(pool.log_likelihood_KN[0], mixed)


def test_numbers_are_mixed_by_their_means() -> None:
    mean, target = torch.tensor([[[0.0], [2.0]], [[2.0], [4.0]]]), torch.tensor([[1.0], [3.0]])
    pool = pool_of_trials("rmse", [{"mean": mean}, {"mean": mean + 1}], target)
    assert pool.trial(pool.empty(), 0, [0, 1]) == pytest.approx([0.0, 1.0])


def job_of(search: dict[str, Any], **sections: Any) -> Any:
    data: dict[str, Any] = {
        "name": "marginal",
        "data": {"source": "digits", "preprocess": ["standardize"], "test": 0.5},
        "model": {"name": "mlp", "hidden": [8]},
        "training": {"epochs": 2, "batch_size": 128},
        "search": {
            "space": {RATE: {"loguniform": [1e-4, 0.3]}, DROP: {"uniform": [0, 0.5]}},
            "algorithm": {"name": "optuna", "batch": 4, "startup": 4},
            "trials": 10,
            "objective": "marginal_gain",
            **search,
        },
        "aggregate": {"select": "greedy"},
        "evaluate": {"resamples": 100},
        "compute": {"executor": "local", "measure": "off", "health": "off"},
    }
    for section, value in sections.items():
        data[section] = {**data.get(section, {}), **value} if isinstance(value, dict) else value
    return parse_job(data)


def train(job: Any, out: Path) -> Run:
    return pipeline.train(job, out=out, directory=Path.cwd(), executor=LocalExecutor(retries=0))


def test_a_search_for_the_ensemble_is_told_what_each_trial_adds_to_it(tmp_path: Path) -> None:
    """The second round is the one that follows from the first one's gains, measured on the run's own predictions."""
    job = job_of({"trials": 6, "algorithm": {"name": "optuna", "batch": 3, "startup": 3}})
    run = train(job, tmp_path / "run")
    first, second = ([frozen(values) for values in e["trials"]] for e in run.journal.of_kind("asked"))
    said = run.predictions("validation")
    log_likelihood_KN = (
        said["log_probs"][:3].double().gather(2, said["target"].expand(3, -1)[..., None])[..., 0]
    )
    gains = marginal_gains(LikelihoodPool(log_likelihood_KN), 50)
    tried = [(values, -gain) for values, gain in zip(first, gains, strict=True)]
    assert list(ask(job.search, job.seed, tried, 3)) == second


@pytest.mark.parametrize(
    "search, sections, path, words",
    [
        ({"algorithm": "random"}, {}, "search.objective", "is for what learns"),
        (
            {},
            {"data": {"validation": "oob"}, "ensemble": {"resample": "bootstrap"}},
            "search.objective",
            "give data.validation a share",
        ),
        ({"algorithm": {"name": "optuna", "sampler": "cmaes"}}, {}, "search.algorithm.sampler", "must be"),
        (
            {
                "objective": "loss",
                "algorithm": {"name": "optuna", "sampler": "gp"},
                "space": {
                    "model.norm": {"choice": ["none", "batch"]},
                    DROP: {"uniform": [0, 0.5], "when": {"model.norm": "none"}},
                },
            },
            {},
            "search.algorithm.sampler",
            "use tpe",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_from_is_told(
    search: dict[str, Any], sections: dict[str, Any], path: str, words: str
) -> None:
    with pytest.raises(SpecError) as caught:
        job_of(search, **sections)
    told = {fault.path: fault.message for fault in caught.value.faults}
    assert words in told[path]


def test_a_gaussian_process_learns_and_is_a_function_of_the_seed() -> None:
    """A bowl in two dimensions, three trials at a time; against the best of as many at random."""
    best: dict[int, float] = {}
    for startup in (6, 1000):
        algorithm = {"name": "optuna", "sampler": "gp", "startup": startup}
        search = job_of({"algorithm": algorithm, "objective": "loss"}).search
        tried: list[tuple[dict[str, Any], float | None]] = []
        for number in range(5):
            asked = ask(search, 3, tried, 3)
            assert len({str(values) for values in asked}) == 3
            assert number != 3 or asked == ask(search, 3, tried, 3)
            tried += [(v, (math.log10(v[RATE]) + 2) ** 2 + (4 * v[DROP] - 1) ** 2) for v in asked]
        best[startup] = min(loss for _, loss in tried if loss is not None)
    assert best[6] < best[1000]
