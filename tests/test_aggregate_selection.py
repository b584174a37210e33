"""Laws of selecting members, and agreement with a selection written out plainly."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_svc.aggregate.diverse import diverse
from ensemble_svc.aggregate.likelihood import log_likelihood
from ensemble_svc.aggregate.pools import (
    LikelihoodPool,
    MeanPool,
    Pool,
    accuracy_pool,
    brier_pool,
    squared_error_pool,
)
from ensemble_svc.aggregate.predictions import average, mixture_log_density
from ensemble_svc.aggregate.selection import bagged, greedy, take_all, top_k
from ensemble_svc.errors import EnsembleError

law = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
members = st.integers(1, 7)
KINDS = ("nll", "accuracy", "brier", "rmse", "density", "custom")
every_kind = pytest.mark.parametrize("kind", KINDS)


def classifiers(seed: int, num_members: int, num_rows: int = 40) -> tuple[Tensor, Tensor]:
    """Members that know something, each of different strength, [K, N, 3], and the classes."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(3, (num_rows,), generator=generator)
    logits = torch.randn(num_members, num_rows, 3, generator=generator, dtype=torch.float64) * 2
    strength = torch.rand(num_members, 1, 1, generator=generator) * 2
    logits += strength * torch.nn.functional.one_hot(target, 3)
    return logits.log_softmax(-1), target


def gaussians(seed: int, num_members: int, num_rows: int = 40) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(num_rows, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(num_members, num_rows, 2, generator=generator, dtype=torch.float64)
    log_variance = torch.randn(num_members, num_rows, 2, generator=generator, dtype=torch.float64)
    return {"mean": target + noise, "log_variance": log_variance}, target


def pool_of(kind: str, seed: int, num_members: int) -> Pool:
    log_probs, target = classifiers(seed, num_members)
    gaussian, numbers = gaussians(seed, num_members)
    if kind == "nll":
        return LikelihoodPool(log_likelihood({"log_probs": log_probs}, target))
    if kind == "accuracy":
        return accuracy_pool(log_probs, target)
    if kind == "brier":
        return brier_pool(log_probs, target)
    if kind == "rmse":
        return squared_error_pool(gaussian["mean"], numbers)
    if kind == "density":
        return LikelihoodPool(log_likelihood(gaussian, numbers))
    margin = torch.nn.functional.one_hot(target, 3).double()
    return MeanPool(log_probs, lambda p_NC: (p_NC * margin).sum().item(), True, logarithms=True)


def score_afresh(kind: str, seed: int, num_members: int, picks: tuple[int, ...]) -> float:
    """The score of the picks' ensemble from its definition, without running totals."""
    log_probs, target = classifiers(seed, num_members)
    gaussian, numbers = gaussians(seed, num_members)
    picked, rows = list(picks), torch.arange(len(target))
    if kind == "rmse":
        return (gaussian["mean"][picked].mean(0) - numbers).square().mean().sqrt().item()
    if kind == "density":
        mixed = mixture_log_density(gaussian["mean"][picked], gaussian["log_variance"][picked], numbers)
        return -mixed.mean().item()
    mixture = average(log_probs[picked])
    if kind == "nll":
        return -mixture[rows, target].mean().item()
    if kind == "accuracy":
        return (mixture.argmax(-1) == target).double().mean().item()
    if kind == "brier":
        return (mixture.exp() - torch.nn.functional.one_hot(target, 3)).square().sum(-1).mean().item()
    return mixture.exp()[rows, target].sum().item()


def better(pool: Pool, one: float, other: float) -> bool:
    """Whether one is at least as good as the other, to round-off."""
    return one >= other - 1e-9 if pool.higher_is_better else one <= other + 1e-9


@every_kind
@law
@given(seeds, members, st.integers(1, 12))
def test_scores_are_those_of_the_ensemble_of_the_picks(kind, seed, num_members, max_picks) -> None:
    chosen = greedy(pool_of(kind, seed, num_members), max_picks, decimals=None)
    for size, score in enumerate(chosen.scores, start=1):
        assert score == pytest.approx(score_afresh(kind, seed, num_members, chosen.picks[:size]), rel=1e-9)


@every_kind
@law
@given(seeds, members, st.integers(1, 12), st.integers(0, 7))
def test_greedy_is_never_worse_than_the_best_single_member(
    kind, seed, num_members, max_picks, sorted_start
) -> None:
    pool = pool_of(kind, seed, num_members)
    start = min(sorted_start, num_members, max_picks)
    chosen = greedy(pool, max_picks, sorted_start=start)
    afresh = score_afresh(kind, seed, num_members, chosen.picks)
    for k in range(num_members):
        assert better(pool, afresh, score_afresh(kind, seed, num_members, (k,)))
    assert all(better(pool, chosen.scores[-1], score) for score in chosen.scores)


@every_kind
@law
@given(seeds, members, st.integers(1, 12))
def test_weights_are_counts_over_the_total(kind, seed, num_members, max_picks) -> None:
    chosen = greedy(pool_of(kind, seed, num_members), max_picks)
    counts = [chosen.picks.count(k) for k in range(num_members)]
    assert chosen.weights == tuple(count / len(chosen.picks) for count in counts)
    assert math.fsum(chosen.weights) == pytest.approx(1)
    assert chosen.chosen == tuple(sorted(set(chosen.picks)))


def plain_selection(error_of, predictions: np.ndarray, max_picks: int) -> tuple[list[int], list[float]]:
    """Caruana's selection as AutoGluon does it, all of it recomputed at each step; the first of ties is drawn."""
    picks: list[int] = []
    trajectory: list[float] = []
    rounding = False
    for i in range(max_picks):
        errors = np.array([error_of(predictions[[*picks, k]].mean(axis=0)) for k in range(len(predictions))])
        if rounding:
            errors = errors.round(6)
        tied = np.flatnonzero(np.isclose(errors, errors.min(), atol=0, rtol=1e-12))
        drawn = [k for k in tied if k in picks] or list(tied)
        best = errors[drawn[0]]
        if i == 0 and abs(best) > 1e-4:
            rounding, best = True, best.round(6)
        picks.append(int(drawn[0]))
        trajectory.append(float(best))
        if len(predictions) == 1:
            break
    length = trajectory.index(min(trajectory)) + 1
    return picks[:length], trajectory[:length]


@pytest.mark.parametrize("kind", ["nll", "accuracy", "brier", "rmse"])
@law
@given(seeds, members)
def test_the_picks_are_those_of_a_plain_selection(kind, seed, num_members) -> None:
    log_probs, target = classifiers(seed, num_members)
    gaussian, numbers = gaussians(seed, num_members)
    y, one_hot = target.numpy(), np.eye(3)[target.numpy()]
    error_of = {
        "nll": lambda p: -np.log(p[np.arange(len(y)), y]).mean(),
        "accuracy": lambda p: 1 - (p.argmax(-1) == y).mean(),
        "brier": lambda p: ((p - one_hot) ** 2).sum(-1).mean(),
        "rmse": lambda p: np.sqrt(((p - numbers.numpy()) ** 2).mean()),
    }[kind]
    predictions = gaussian["mean"].numpy() if kind == "rmse" else log_probs.exp().numpy()
    picks, errors = plain_selection(error_of, predictions, 15)
    chosen = greedy(pool_of(kind, seed, num_members), 15)
    assert list(chosen.picks) == picks
    expected = [1 - e for e in errors] if kind == "accuracy" else errors
    assert list(chosen.scores) == pytest.approx(expected, abs=1.1e-6)


@pytest.mark.parametrize("kind", ["nll", "accuracy", "rmse"])
@law
@given(seeds, members)
def test_the_picks_are_autogluons(kind, seed, num_members) -> None:
    """Against the real one, where it is installed, told to take the first of ties in the place of a random one."""
    peer = pytest.importorskip("autogluon.core.models.greedy_ensemble.ensemble_selection")
    metrics = pytest.importorskip("autogluon.core.metrics")
    log_probs, target = classifiers(seed, num_members)
    gaussian, numbers = gaussians(seed, num_members)
    name = {"nll": "log_loss", "accuracy": "accuracy", "rmse": "root_mean_squared_error"}[kind]
    predictions = gaussian["mean"][..., 0] if kind == "rmse" else log_probs.exp()
    pool = squared_error_pool(gaussian["mean"][..., :1], numbers[:, :1]) if kind == "rmse" else None
    theirs = peer.EnsembleSelection(
        15,
        "regression" if kind == "rmse" else "multiclass",
        getattr(metrics, name),
        random_state=SimpleNamespace(choice=lambda ties: ties[0]),
    )
    theirs.fit([p.numpy() for p in predictions], (numbers[:, 0] if kind == "rmse" else target).numpy())
    chosen = greedy(pool or pool_of(kind, seed, num_members), 15)
    assert list(chosen.picks) == [int(pick) for pick in theirs.indices_]
    assert list(chosen.weights) == pytest.approx(list(theirs.weights_))


@every_kind
@law
@given(seeds, st.integers(2, 5))
def test_copies_of_one_member_are_picked_once(kind, seed, copies) -> None:
    pool = pool_of(kind, seed, 1)
    if isinstance(pool, LikelihoodPool):
        many: Pool = LikelihoodPool(pool.log_likelihood_KN.expand(copies, -1))
    else:
        many = MeanPool(
            pool.members_KNV.expand(copies, -1, -1), pool.measure, pool.higher_is_better, pool.logarithms
        )
    assert greedy(many, 10).picks == (0,)


@law
@given(seeds, members)
def test_a_useless_member_is_not_picked(seed, num_members) -> None:
    """One certain of a wrong class lowers the likelihood of any mixture; one far off, the mean of any."""
    log_probs, target = classifiers(seed, num_members)
    gaussian, numbers = gaussians(seed, num_members)
    wrong = torch.nn.functional.one_hot((target + 1) % 3, 3).double().clamp(min=1e-12).log().log_softmax(-1)
    with_wrong = {"log_probs": torch.cat([wrong[None], log_probs])}
    assert greedy(LikelihoodPool(log_likelihood(with_wrong, target)), 12).weights[0] == 0
    far_off = torch.cat([numbers[None] + 1e4, gaussian["mean"]])
    assert greedy(squared_error_pool(far_off, numbers), 12).weights[0] == 0


def test_accuracy_is_maximised_and_nll_minimised() -> None:
    log_probs, target = classifiers(0, 5, num_rows=200)
    rows = torch.arange(200)
    accuracy = (log_probs.argmax(-1) == target).double().mean(-1)
    nll = -log_probs[:, rows, target].mean(-1)
    assert greedy(accuracy_pool(log_probs, target), 1).picks == (int(accuracy.argmax()),)
    pool = LikelihoodPool(log_likelihood({"log_probs": log_probs}, target))
    assert greedy(pool, 1).picks == (int(nll.argmin()),)
    assert top_k(accuracy_pool(log_probs, target), 5).picks == tuple(
        accuracy.argsort(descending=True).tolist()
    )
    assert top_k(pool, 5).picks == tuple(nll.argsort().tolist())


@every_kind
@law
@given(seeds, members)
def test_top_k_scores_each_prefix(kind, seed, num_members) -> None:
    chosen = top_k(pool_of(kind, seed, num_members), num_members)
    assert sorted(chosen.picks) == list(range(num_members))
    for size, score in enumerate(chosen.scores, start=1):
        assert score == pytest.approx(score_afresh(kind, seed, num_members, chosen.picks[:size]), rel=1e-9)


@every_kind
@law
@given(seeds, st.integers(2, 6))
def test_a_sorted_start_is_the_best_prefix_of_the_ranking(kind, seed, num_members) -> None:
    pool = pool_of(kind, seed, num_members)
    ranking = top_k(pool, num_members)
    started = greedy(pool, num_members, sorted_start=num_members, decimals=None)
    best = (max if pool.higher_is_better else min)(ranking.scores)
    length = ranking.scores.index(best) + 1
    assert started.picks[:length] == ranking.picks[:length]


@every_kind
@law
@given(seeds, members, st.integers(1, 4))
def test_bags_of_everyone_are_the_plain_selection(kind, seed, num_members, bags) -> None:
    pool = pool_of(kind, seed, num_members)
    assert bagged(pool, 6, bags=bags, share=1.0, seed=seed).weights == pytest.approx(greedy(pool, 6).weights)
    some = bagged(pool, 6, bags=bags, share=0.5, seed=seed)
    assert some == bagged(pool, 6, bags=bags, share=0.5, seed=seed)
    assert math.fsum(some.weights) == pytest.approx(1)


@law
@given(seeds, members)
def test_without_diversity_the_best_alone_are_taken(seed, num_members) -> None:
    gaussian, numbers = gaussians(seed, num_members)
    mean, pool = gaussian["mean"], squared_error_pool(gaussian["mean"], numbers)
    error = (mean - numbers).square().mean((1, 2))
    disagreement = (mean[:, None] - mean[None]).square().mean((2, 3))
    assert diverse(error, disagreement, num_members, diversity=0).picks == top_k(pool, num_members).picks


@law
@given(seeds, st.integers(2, 6))
def test_the_second_diverse_member_makes_the_best_pair_with_the_first(seed, num_members) -> None:
    """With squared errors and a weight of m / (m + 1) = 1/2 the least value is the pair's own squared error."""
    gaussian, numbers = gaussians(seed, num_members)
    mean = gaussian["mean"]
    error = (mean - numbers).square().mean((1, 2))
    disagreement = (mean[:, None] - mean[None]).square().mean((2, 3))
    first, second = diverse(error, disagreement, 2, diversity=0.5).picks
    pairs = {k: ((mean[first] + mean[k]) / 2 - numbers).square().mean() for k in range(num_members)}
    assert second == min((k for k in pairs if k != first), key=pairs.__getitem__)


def test_members_that_cannot_be_scored_are_refused() -> None:
    impossible = torch.full((2, 3), -torch.inf)
    with pytest.raises(EnsembleError, match="no choice of members has a finite score"):
        greedy(LikelihoodPool(impossible), 3)
    with pytest.raises(EnsembleError, match="member 1: the log likelihood of row 2 is nan"):
        LikelihoodPool(torch.tensor([[0.0, 0, 0], [0, 0, torch.nan]]))
    log_probs, target = classifiers(0, 3)
    with pytest.raises(EnsembleError, match="need a target for each row"):
        accuracy_pool(log_probs, target[:-1])
    pool = accuracy_pool(log_probs, target)
    for wrong in (
        lambda: greedy(pool, 0),
        lambda: greedy(pool, 2, sorted_start=3),
        lambda: top_k(pool, 4),
        lambda: take_all(0),
        lambda: bagged(pool, 2, bags=0, share=0.5, seed=0),
        lambda: bagged(pool, 2, bags=1, share=0, seed=0),
        lambda: diverse(torch.zeros(2), torch.zeros(2, 3), 1, diversity=1),
        lambda: diverse(torch.zeros(2), torch.zeros(2, 2), 3, diversity=1),
        lambda: diverse(torch.tensor([0, torch.nan]), torch.zeros(2, 2), 1, diversity=1),
        lambda: diverse(torch.zeros(2), torch.zeros(2, 2), 1, diversity=-1),
    ):
        with pytest.raises(EnsembleError):
            wrong()
    assert take_all(4).weights == (0.25,) * 4
