"""Laws of the parts of uncertainty: they add up, are never negative, and vanish for copies."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_svc.aggregate.predictions import mix_gaussians
from ensemble_svc.aggregate.uncertainty import entropy, expected_entropy, mutual_information, variance
from ensemble_svc.errors import EnsembleError

law = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(2, 5))


def classifiers(seed: int, size: tuple[int, int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, generator=generator, dtype=torch.float64) * 10
    logits[..., 1:][torch.rand((*size[:2], size[2] - 1), generator=generator) < 0.2] = -torch.inf
    return logits.log_softmax(-1)


def weights(seed: int, num_members: int) -> Tensor:
    drawn = torch.rand(num_members, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn / drawn.sum()


@law
@given(seeds, sizes)
def test_total_is_aleatoric_and_epistemic(seed, size) -> None:
    log_probs, weights_K = classifiers(seed, size), weights(seed, size[0])
    parts = expected_entropy(log_probs, weights_K) + mutual_information(log_probs, weights_K)
    torch.testing.assert_close(entropy(log_probs, weights_K), parts, rtol=0, atol=1e-12)

    generator = torch.Generator().manual_seed(seed)
    mean, log_variance = torch.randn(2, *size, generator=generator, dtype=torch.float64) * 3
    whole = variance(mean, log_variance, weights_K)
    assert torch.equal(whole.total, whole.aleatoric + whole.epistemic)
    torch.testing.assert_close(whole.total, mix_gaussians(mean, log_variance, weights_K)[1].exp())


@law
@given(seeds, sizes)
def test_every_part_keeps_its_bounds(seed, size) -> None:
    log_probs, weights_K = classifiers(seed, size), weights(seed, size[0])
    for part in (entropy(log_probs, weights_K), expected_entropy(log_probs, weights_K)):
        assert part.shape == (size[1],)
        assert (part >= 0).all()
        assert (part <= math.log(size[2]) + 1e-12).all()
    information = mutual_information(log_probs, weights_K)
    assert (information >= 0).all()
    assert (information <= math.log(size[0]) + 1e-12).all()


@law
@given(seeds, sizes)
def test_copies_do_not_disagree(seed, size) -> None:
    log_probs = classifiers(seed, (1, *size[1:])).expand(size[0], -1, -1)
    weights_K = weights(seed, size[0])
    torch.testing.assert_close(
        mutual_information(log_probs, weights_K),
        torch.zeros(size[1], dtype=torch.float64),
        rtol=0,
        atol=1e-13,
    )
    mean = torch.randn(1, *size[1:], generator=torch.Generator().manual_seed(seed)).expand(size[0], -1, -1)
    whole = variance(mean, torch.zeros_like(mean), weights_K)
    torch.testing.assert_close(whole.epistemic, torch.zeros_like(whole.epistemic), rtol=0, atol=1e-13)


def test_sure_members_that_contradict_each_other_are_all_disagreement() -> None:
    """Each of two members is certain of another class: total log 2, nothing of it noise."""
    log_probs = torch.tensor([[[0.0, -torch.inf]], [[-torch.inf, 0.0]]])
    assert entropy(log_probs).item() == pytest.approx(math.log(2), abs=1e-12)
    assert expected_entropy(log_probs).item() == 0
    assert mutual_information(log_probs).item() == pytest.approx(math.log(2), abs=1e-12)


@law
@given(seeds, sizes)
def test_information_is_the_mean_divergence_from_the_ensemble(seed, size) -> None:
    """Against torch's own KL(member || mean prediction)."""
    probs, weights_K = classifiers(seed, size).exp(), weights(seed, size[0])
    mixed = (weights_K[:, None, None] * probs).sum(0)
    divergence = torch.nn.functional.kl_div(mixed.log().expand_as(probs), probs, reduction="none")
    expected = weights_K @ divergence.nan_to_num().sum(-1)
    torch.testing.assert_close(mutual_information(probs.log(), weights_K), expected, rtol=0, atol=1e-12)


def test_weights_count_in_every_part() -> None:
    """Weight 1 on one of two members that are 10 apart leaves no disagreement, only its own noise."""
    mean = torch.tensor([0.0, 10.0]).reshape(2, 1, 1)
    whole = variance(mean, torch.zeros(2, 1, 1), torch.tensor([1.0, 0.0]))
    assert (whole.total.item(), whole.aleatoric.item(), whole.epistemic.item()) == (1, 1, 0)
    log_probs = torch.tensor([[[0.0, -torch.inf]], [[-torch.inf, 0.0]]])
    assert mutual_information(log_probs, torch.tensor([0.0, 1.0])).item() == 0


@pytest.mark.parametrize("part", [entropy, expected_entropy, mutual_information])
def test_rows_and_members_are_not_confused(part) -> None:
    """3 members, 5 rows: 5 numbers; what is no distribution along the last axis is refused."""
    log_probs = classifiers(0, (3, 5, 4))
    assert part(log_probs).shape == (5,)
    with pytest.raises(EnsembleError, match="member 0"):
        part(log_probs.permute(2, 1, 0))
    with pytest.raises(EnsembleError, match=r"shape \[4\]; 3 members"):
        part(log_probs, torch.full((4,), 0.25))
