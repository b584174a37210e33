"""Laws of the geometric mean, the vote and the running sums."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_svc.aggregate.pooling import geometric, vote
from ensemble_svc.aggregate.predictions import average, mix_gaussians
from ensemble_svc.aggregate.running import (
    TIE_SHARE,
    RunningGaussians,
    RunningGeometric,
    RunningMixture,
    RunningVotes,
)
from ensemble_svc.errors import EnsembleError

law = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(2, 5))
dtypes = st.sampled_from([torch.float32, torch.float64])
pools = pytest.mark.parametrize("pool", [geometric, vote])


def classifiers(seed: int, size: tuple[int, int, int], dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, generator=generator, dtype=torch.float64) * 4
    far = torch.rand(size, generator=generator) > 0.9
    return (logits - far * 1e4).log_softmax(-1).to(dtype)


def gaussians(seed: int, size: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(size, generator=generator, dtype=torch.float64) * 10
    return mean, torch.randn(size, generator=generator, dtype=torch.float64) * 3


def weights(seed: int, num_members: int) -> Tensor:
    drawn = torch.rand(num_members, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.01
    return drawn / drawn.sum()


@pools
@law
@given(seeds, sizes, dtypes)
def test_a_pool_is_a_distribution_and_ignores_order_and_weightless_members(pool, seed, size, dtype) -> None:
    members, weights_K = classifiers(seed, size, dtype), weights(seed, size[0])
    pooled = pool(members, weights_K)
    assert pooled.dtype == dtype
    torch.testing.assert_close(
        pooled.double().logsumexp(-1), torch.zeros(size[1]).double(), atol=1e-4, rtol=0
    )
    order = torch.randperm(size[0], generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(pool(members[order], weights_K[order]), pooled)
    more = torch.cat([members, classifiers(seed + 1, (1, *size[1:]), dtype)])
    torch.testing.assert_close(pool(more, torch.cat([weights_K, torch.zeros(1)])), pooled)


@law
@given(seeds, sizes, dtypes)
def test_the_geometric_mean_of_one_is_that_one_and_of_copies_too(seed, size, dtype) -> None:
    member = classifiers(seed, (1, *size[1:]), dtype)
    assert torch.equal(geometric(member), member[0])
    copies = geometric(member.expand(size[0], -1, -1), weights(seed, size[0]))
    torch.testing.assert_close(copies, member[0], atol=1e-5, rtol=1e-5)


@law
@given(seeds, sizes)
def test_the_geometric_mean_is_the_softmax_of_the_mean_logits(seed, size) -> None:
    logits = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weights_K = weights(seed, size[0])
    expected = (weights_K[:, None, None] * logits).sum(0).log_softmax(-1)
    torch.testing.assert_close(geometric(logits.log_softmax(-1), weights_K), expected)


@law
@given(seeds, sizes)
def test_a_vote_is_won_by_the_most_votes_and_a_tie_by_the_larger_mean(seed, size) -> None:
    members = classifiers(seed, size)
    counts = torch.nn.functional.one_hot(members.argmax(-1), size[2]).sum(0).double()
    shares = vote(members).exp()
    mean = average(members).exp()
    torch.testing.assert_close(shares, counts / size[0], atol=TIE_SHARE, rtol=0)
    for row in range(size[1]):
        first = [c for c in range(size[2]) if counts[row, c] == counts[row].max()]
        assert shares[row].argmax() == max(first, key=lambda c: mean[row, c].item())


def test_two_against_one_wins_however_certain_the_one_is() -> None:
    members = torch.tensor([[[0.51, 0.49]], [[0.51, 0.49]], [[1e-9, 1 - 1e-9]]], dtype=torch.float64).log()
    assert vote(members).argmax() == 0
    assert average(members).argmax() == 1
    weighted = vote(members, torch.tensor([0.2, 0.2, 0.6]))
    assert weighted.argmax() == 1


RUNNING = {
    "mixture": (RunningMixture, average),
    "geometric": (RunningGeometric, geometric),
    "votes": (RunningVotes, vote),
}


@pytest.mark.parametrize("name", RUNNING)
@law
@given(seeds, sizes, st.integers(1, 6))
def test_chunks_in_any_order_are_the_whole(name, seed, size, chunk) -> None:
    start, whole = RUNNING[name]
    members, weights_K = classifiers(seed, size), weights(seed, size[0])
    order = torch.randperm(size[0], generator=torch.Generator().manual_seed(seed))
    sums = start()
    for index in order.split(chunk):
        before = sums
        kept = None if getattr(before, "total_NC", None) is None else before.total_NC.clone()
        sums = before.add(members[index], (7 * weights_K[index]).tolist())
        assert kept is None or torch.equal(before.total_NC, kept)
    torch.testing.assert_close(sums.result(), whole(members, weights_K), rtol=1e-9, atol=1e-9)


def test_what_all_members_think_next_to_impossible_stays_so() -> None:
    """Below the smallest float64 a probability has only its logarithm; one member above that counts alone."""
    low = torch.tensor([[[0.0, -2000.0, -800.0, -torch.inf]], [[0.0, -2001.0, -3.0, -torch.inf]]]).double()
    low = low.log_softmax(-1)
    one_by_one = RunningMixture().add(low[:1], [0.25]).add(low[1:], [0.75])
    for sums in (one_by_one, RunningMixture().add(low, [0.25, 0.75])):
        expected = (torch.tensor([0.25, 0.75]).double().log()[:, None, None] + low).logsumexp(0)
        torch.testing.assert_close(sums.result()[:, 1:], expected[:, 1:])


@law
@given(seeds, sizes, st.integers(1, 6))
def test_gaussians_in_chunks_are_the_whole_mixture(seed, size, chunk) -> None:
    (mean, log_variance), weights_K = gaussians(seed, size), weights(seed, size[0])
    order = torch.randperm(size[0], generator=torch.Generator().manual_seed(seed))
    sums = RunningGaussians()
    for index in order.split(chunk):
        sums = sums.add(mean[index], log_variance[index], 3 * weights_K[index])
    for ours, whole in zip(sums.result(), mix_gaussians(mean, log_variance, weights_K), strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-9, atol=1e-9)


def test_two_gaussians_ten_apart_have_a_deviation_of_five_point_one() -> None:
    mean, log_variance = torch.tensor([[[0.0]], [[10.0]]]), torch.zeros(2, 1, 1)
    mixed = RunningGaussians().add(mean[:1], log_variance[:1]).add(mean[1:], log_variance[1:]).result()
    assert mixed[0].item() == pytest.approx(5)
    assert mixed[1].exp().sqrt().item() == pytest.approx(26**0.5)


def test_what_cannot_be_combined_is_named() -> None:
    veto = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]).log()
    with pytest.raises(EnsembleError, match="in row 0 each class has probability 0 by some member"):
        geometric(veto)
    members = classifiers(0, (2, 3, 2))
    for start, _ in RUNNING.values():
        with pytest.raises(EnsembleError, match="nothing to combine"):
            start().result()
        with pytest.raises(EnsembleError, match="those before"):
            start().add(members).add(members[:, :2])
        with pytest.raises(EnsembleError, match="weight of member 1 is -1.0"):
            start().add(members, [1, -1])
        with pytest.raises(EnsembleError, match="1 weights for 2 members"):
            start().add(members, [1])
    with pytest.raises(EnsembleError, match="nothing to combine"):
        RunningGaussians().result()
    for pool in (geometric, vote):
        with pytest.raises(EnsembleError, match="sum to"):
            pool(members, torch.tensor([0.5, 0.6]))
