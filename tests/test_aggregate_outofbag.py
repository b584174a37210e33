"""Laws of out-of-bag predictions, against a loop over the rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_svc.aggregate.likelihood import log_likelihood
from ensemble_svc.aggregate.outofbag import (
    OutOfBagPool,
    greedy_out_of_bag,
    out_of_bag_classes,
    out_of_bag_likelihood,
    out_of_bag_numbers,
    seen_by,
    unseen_by_fold,
)
from ensemble_svc.aggregate.predictions import average, average_means, mix_gaussians
from ensemble_svc.errors import EnsembleError

law = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 5), st.integers(1, 9))


def problem(seed: int, size: tuple[int, int]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Members of both kinds, a mask and weights, one of which may be 0."""
    generator = torch.Generator().manual_seed(seed)
    mean, log_variance = torch.randn(2, *size, 2, generator=generator, dtype=torch.float64) * 3
    logits = torch.randn(*size, 3, generator=generator, dtype=torch.float64) * 4
    weights = torch.rand(size[0], generator=generator, dtype=torch.float64) + 0.01
    if size[0] > 1:
        weights[0] *= torch.rand(1, generator=generator).item() < 0.7
    members = {"log_probs": logits.log_softmax(-1), "mean": mean, "log_variance": log_variance}
    return members, torch.rand(size, generator=generator) < 0.5, weights / weights.sum()


@law
@given(seeds, sizes)
def test_each_row_is_predicted_by_those_that_did_not_see_it(seed, size) -> None:
    members, seen, weights = problem(seed, size)
    classes = out_of_bag_classes(members["log_probs"], seen, weights)
    numbers = out_of_bag_numbers(members["mean"], members["log_variance"], seen, weights)
    bare = out_of_bag_numbers(members["mean"], None, seen, weights)
    assert set(bare.prediction) == {"mean"}
    for row in range(size[1]):
        voters = [k for k in range(size[0]) if not seen[k, row] and weights[k] > 0]
        for result in (classes, numbers, bare):
            assert result.voters_N[row] == len(voters)
            assert all(value[row].isnan().all() == (not voters) for value in result.prediction.values())
        if voters:
            share = weights[voters] / weights[voters].sum()
            of_row = {key: value[voters][:, [row]] for key, value in members.items()}
            expected = average(of_row["log_probs"], share)[0]
            torch.testing.assert_close(classes.prediction["log_probs"][row], expected)
            mean, log_variance = mix_gaussians(of_row["mean"], of_row["log_variance"], share)
            torch.testing.assert_close(numbers.prediction["mean"][row], mean[0], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(
                numbers.prediction["log_variance"][row], log_variance[0], rtol=1e-5, atol=1e-6
            )
            mean_alone = average_means(of_row["mean"], share)[0]
            torch.testing.assert_close(bare.prediction["mean"][row], mean_alone, rtol=1e-5, atol=1e-6)
    unscored = sum(bool(seen[weights > 0, row].all()) for row in range(size[1]))
    assert classes.num_unscored == unscored
    assert int(classes.scored_N.sum()) == size[1] - unscored


@law
@given(seeds, sizes)
def test_the_likelihood_is_that_of_the_prediction(seed, size) -> None:
    members, seen, weights = problem(seed, size)
    target = torch.randint(3, size[1:], generator=torch.Generator().manual_seed(seed))
    likelihood = log_likelihood({"log_probs": members["log_probs"]}, target)
    row_N, voters_N = out_of_bag_likelihood(likelihood, seen, weights)
    whole = out_of_bag_classes(members["log_probs"], seen, weights)
    expected = whole.prediction["log_probs"].gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(row_N, expected, equal_nan=True)
    assert torch.equal(voters_N, whole.voters_N)


@law
@given(seeds, st.integers(2, 5), st.integers(1, 4))
def test_with_folds_each_row_is_predicted_by_its_own_folds_members(seed, num_folds, per_fold) -> None:
    num_members, num_rows = num_folds * per_fold, 12
    members, _, _ = problem(seed, (num_members, num_rows))
    fold_K, fold_N = torch.arange(num_members) % num_folds, torch.arange(num_rows) % num_folds
    result = out_of_bag_classes(members["log_probs"], unseen_by_fold(fold_K, fold_N))
    assert result.num_unscored == 0
    for fold in range(num_folds):
        expected = average(members["log_probs"][fold_K == fold][:, fold_N == fold])
        torch.testing.assert_close(result.prediction["log_probs"][fold_N == fold], expected)


@law
@given(seeds, sizes)
def test_rows_that_were_trained_on_change_nothing(seed, size) -> None:
    members, seen, weights = problem(seed, size)
    other, _, _ = problem(seed + 1, size)
    mixed = torch.where(seen[..., None], other["log_probs"], members["log_probs"])
    ours = out_of_bag_classes(members["log_probs"], seen, weights).prediction["log_probs"]
    theirs = out_of_bag_classes(mixed, seen, weights).prediction["log_probs"]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@law
@given(seeds, sizes)
def test_picks_out_of_bag_come_on_top_of_one_vote_each_and_never_make_it_worse(seed, size) -> None:
    members, seen, _ = problem(seed, size)
    if seen.all():
        return
    target = torch.zeros(size[1], dtype=torch.int64)
    likelihood = log_likelihood({"log_probs": members["log_probs"]}, target)
    pool = OutOfBagPool(likelihood, seen)
    chosen = greedy_out_of_bag(pool, 5)
    assert sum(chosen.weights) == pytest.approx(1)
    votes = [1 + chosen.picks.count(k) if chosen.scores else 1 for k in range(size[0])]
    assert chosen.weights == pytest.approx([v / sum(votes) for v in votes])
    by_all, voters = out_of_bag_likelihood(
        likelihood, seen, torch.tensor(chosen.weights, dtype=torch.float64)
    )
    score = -by_all[voters > 0].mean().item()
    assert score <= pool.score_of_all + 1e-6  # scores are compared to six decimals
    if chosen.scores:
        assert chosen.scores[-1] == pytest.approx(score, abs=2e-6)


def test_row_numbers_become_a_mask() -> None:
    mask = seen_by([torch.tensor([0, 0, 2]), torch.tensor([], dtype=torch.int64)], 3)
    assert mask.tolist() == [[True, False, True], [False, False, False]]
    with pytest.raises(EnsembleError, match="member 1 trained on rows 0 to 3; there are rows 0 to 2"):
        seen_by([torch.tensor([1]), torch.tensor([0, 3])], 3)
    with pytest.raises(EnsembleError, match="no members"):
        seen_by([], 3)


def test_masks_that_are_not_the_members_are_refused() -> None:
    members, seen, _ = problem(0, (2, 3))
    for wrong in (seen[:1], seen.long(), seen.T):
        with pytest.raises(EnsembleError, match="the mask of seen rows"):
            out_of_bag_classes(members["log_probs"], wrong)
    with pytest.raises(EnsembleError, match="no out-of-bag row"):
        OutOfBagPool(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool))
