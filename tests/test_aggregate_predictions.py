"""Laws of combining members, on random members and on mixtures that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_svc.aggregate.predictions import average, combine, mix_gaussians, mixture_log_density
from ensemble_svc.errors import EnsembleError

law = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(2, 5))
dtypes = st.sampled_from([torch.float32, torch.float64])


def classifiers(seed: int, size: tuple[int, int, int], dtype: torch.dtype = torch.float64) -> Tensor:
    """Random log probabilities [K, N, C], some of them of probability 0, some far below float32's range."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, generator=generator, dtype=torch.float64) * 10
    drawn = torch.rand(size, generator=generator)
    logits[drawn < 0.1] = -torch.inf
    logits[drawn > 0.9] -= 1e4
    logits[..., 0] = logits[..., 0].clamp(min=-10)  # every row keeps a class that is possible
    return logits.log_softmax(-1).to(dtype)


def gaussians(seed: int, size: tuple[int, int, int], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(size, generator=generator, dtype=torch.float64) * 10
    log_variance = torch.randn(size, generator=generator, dtype=torch.float64) * 3
    return {"mean": mean.to(dtype), "log_variance": log_variance.to(dtype)}


def weights(seed: int, num_members: int) -> Tensor:
    drawn = torch.rand(num_members, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn / drawn.sum()


def every_kind(seed: int, size: tuple[int, int, int], dtype: torch.dtype) -> list[dict[str, Tensor]]:
    gaussian = gaussians(seed, size, dtype)
    return [{"log_probs": classifiers(seed, size, dtype)}, gaussian, {"mean": gaussian["mean"]}]


@law
@given(seeds, sizes, dtypes)
def test_an_ensemble_of_one_is_its_member_to_the_bit(seed, size, dtype) -> None:
    for members in every_kind(seed, (1, *size[1:]), dtype):
        for weights_K in (None, torch.ones(1)):
            ensemble = combine(members, weights_K)
            assert ensemble.keys() == members.keys()
            for key, value in ensemble.items():
                assert value.dtype == dtype
                assert torch.equal(value, members[key][0])


@law
@given(seeds, sizes, dtypes)
def test_copies_of_a_member_are_that_member(seed, size, dtype) -> None:
    for members in every_kind(seed, (1, *size[1:]), dtype):
        copies = {key: value.expand(size[0], -1, -1) for key, value in members.items()}
        ensemble = combine(copies, weights(seed, size[0]))
        for key, value in ensemble.items():
            torch.testing.assert_close(value, members[key][0])


@law
@given(seeds, sizes, dtypes)
def test_the_order_of_the_members_is_of_no_account(seed, size, dtype) -> None:
    weights_K = weights(seed, size[0])
    order = torch.randperm(size[0], generator=torch.Generator().manual_seed(seed))
    for members in every_kind(seed, size, dtype):
        shuffled = combine({key: value[order] for key, value in members.items()}, weights_K[order])
        for key, value in combine(members, weights_K).items():
            torch.testing.assert_close(shuffled[key], value)


@law
@given(seeds, sizes)
def test_the_average_is_the_mean_probability(seed, size) -> None:
    """Against the plain sum of probabilities, and normalised like its members."""
    log_probs = classifiers(seed, size)
    weights_K = weights(seed, size[0])
    mixed = average(log_probs, weights_K)
    torch.testing.assert_close(mixed.exp(), (weights_K[:, None, None] * log_probs.exp()).sum(0))
    torch.testing.assert_close(mixed.logsumexp(-1), torch.zeros(size[1], dtype=torch.float64))
    torch.testing.assert_close(average(log_probs), average(log_probs, torch.full((size[0],), 1 / size[0])))


@law
@given(seeds, sizes)
def test_a_class_is_impossible_only_where_all_members_say_so(seed, size) -> None:
    """Also where the mean probability lies below the smallest float64."""
    log_probs = classifiers(seed, size)
    assert torch.equal(average(log_probs).isneginf(), log_probs.isneginf().all(0))


@law
@given(seeds, sizes)
def test_a_member_of_weight_0_has_no_effect(seed, size) -> None:
    one_hot = torch.zeros(size[0])
    one_hot[seed % size[0]] = 1
    for members in every_kind(seed, size, torch.float64):
        ensemble = combine(members, one_hot)
        for key, value in ensemble.items():
            assert torch.equal(value, members[key][seed % size[0]])


@law
@given(seeds, sizes)
def test_the_mixture_is_no_worse_than_its_members_on_average(seed, size) -> None:
    """Jensen: the log of the mean is at least the mean of the logs, row by row, for any weights."""
    weights_K = weights(seed, size[0])
    log_probs = classifiers(seed, size)
    mean_log = (weights_K[:, None, None] * log_probs).sum(0)
    assert (average(log_probs, weights_K) >= mean_log - 1e-9).all()

    members = gaussians(seed, size)
    target = torch.randn(size[1:], generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 10
    alone = torch.stack([density(members, k, target) for k in range(size[0])])
    mixed = mixture_log_density(members["mean"], members["log_variance"], target, weights_K)
    assert (mixed >= (weights_K @ alone) - 1e-9).all()
    torch.testing.assert_close(mixed, (alone + weights_K.log()[:, None]).logsumexp(0))


def density(members: dict[str, Tensor], k: int, target: Tensor) -> Tensor:
    scale = (members["log_variance"][k] / 2).exp()
    return torch.distributions.Normal(members["mean"][k], scale).log_prob(target).sum(-1)


@law
@given(seeds, sizes)
def test_the_matched_gaussian_has_the_moments_of_the_mixture(seed, size) -> None:
    members, weights_K = gaussians(seed, size), weights(seed, size[0])[:, None, None]
    mean, log_variance = mix_gaussians(members["mean"], members["log_variance"], weights_K.flatten())
    second_moment = (weights_K * (members["log_variance"].exp() + members["mean"].square())).sum(0)
    torch.testing.assert_close(mean, (weights_K * members["mean"]).sum(0))
    torch.testing.assert_close(log_variance.exp() + mean.square(), second_moment)


def test_members_that_disagree_are_wide_together() -> None:
    """N(0, 1) and N(10, 1) mix to mean 5 and deviation 5.10; averaging parameters would say 1."""
    mean = torch.tensor([0.0, 10.0]).reshape(2, 1, 1)
    mixed, log_variance = mix_gaussians(mean, torch.zeros(2, 1, 1))
    assert mixed.item() == 5
    assert math.exp(log_variance.item() / 2) == pytest.approx(math.sqrt(26), abs=1e-6)


def test_the_mixtures_density_is_not_the_matched_gaussians() -> None:
    """Midway between N(0, 1) and N(10, 1) the mixture has a valley, exp(-25/2) / sqrt(2 pi)."""
    mean = torch.tensor([0.0, 10.0], dtype=torch.float64).reshape(2, 1, 1)
    log_density = mixture_log_density(mean, torch.zeros_like(mean), torch.tensor([[5.0]]))
    assert log_density.item() == pytest.approx(-12.5 - 0.5 * math.log(2 * math.pi), abs=1e-12)


def test_the_mixture_is_over_whole_members_not_target_by_target() -> None:
    """Two targets at (0, 10), members at (0, 0) and (10, 10): each gets one right, none gets both."""
    mean = torch.tensor([[[0.0, 0.0]], [[10.0, 10.0]]], dtype=torch.float64)
    log_density = mixture_log_density(
        mean, torch.zeros_like(mean), torch.tensor([[0.0, 10.0]], dtype=torch.float64)
    )
    assert log_density.item() == pytest.approx(-50 - math.log(2 * math.pi), abs=1e-12)


def test_a_target_adds_the_density_to_a_combination() -> None:
    members, target = gaussians(3, (4, 5, 2)), torch.zeros(5, 2)
    expected = mixture_log_density(members["mean"], members["log_variance"], target)
    assert torch.equal(combine(members, target_ND=target)["log_density"], expected)


def test_variances_beyond_the_range_of_floats_do_no_harm() -> None:
    mean = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1)
    log_variance = torch.full_like(mean, 2000.0)
    assert mix_gaussians(mean, log_variance)[1].item() == pytest.approx(2000)
    assert mixture_log_density(mean, log_variance, mean[0]).item() == pytest.approx(
        -1000 - 0.9189385, abs=1e-6
    )


def test_other_tables_beside_the_predictions_are_left_alone() -> None:
    members = {"log_probs": classifiers(0, (2, 3, 4)), "target": torch.zeros(3), "row": torch.arange(3)}
    assert combine(members).keys() == {"log_probs"}


@pytest.mark.parametrize(
    "weights_K, message",
    [
        ([0.5, 0.5], r"shape \[2\]; 3 members need \[3\]"),
        ([[0.5, 0.3, 0.2]], r"shape \[1, 3\]"),
        ([0.5, 0.5, 0.5], "sum to 1.5"),
        ([1.5, -0.5, 0.0], "weight of member 1 is -0.5"),
        ([math.nan, 0.5, 0.5], "weight of member 0 is nan"),
    ],
)
def test_wrong_weights_are_refused(weights_K, message) -> None:
    for members in every_kind(0, (3, 4, 2), torch.float64):
        with pytest.raises(EnsembleError, match=message):
            combine(members, torch.tensor(weights_K))


def spoil(stack: Tensor, value: float) -> Tensor:
    spoiled = stack.clone()
    spoiled[1, 2, 0] = value
    return spoiled


@pytest.mark.parametrize(
    "members, message",
    [
        ({}, "hold nothing"),
        ({"target": torch.zeros(3)}, "hold target"),
        (
            {"log_probs": classifiers(0, (1, 3, 2))[0]},
            r"shape \[3, 2\]; it must be \[members, rows, classes\]",
        ),
        ({"log_probs": torch.zeros(0, 3, 2)}, "none of them empty"),
        ({"log_probs": torch.zeros(2, 3, 2, dtype=torch.int64)}, "int64"),
        ({"log_probs": spoil(classifiers(0, (3, 4, 2)), math.nan)}, "member 1: log_probs is NaN in row 2"),
        ({"log_probs": torch.randn(3, 4, 2)}, "member 0: its probabilities sum to .* in row 0.*log_softmax"),
        ({"log_probs": classifiers(0, (3, 4, 2)).exp()}, "member 0: its probabilities sum"),
        ({"mean": spoil(torch.zeros(3, 4, 2), math.inf)}, "member 1: mean is .* in row 2"),
        (
            {"mean": torch.zeros(3, 4, 2), "log_variance": spoil(torch.zeros(3, 4, 2), math.nan)},
            "member 1: log_variance is .* in row 2",
        ),
        ({"mean": torch.zeros(3, 4, 2), "log_variance": torch.zeros(3, 4, 1)}, r"\[3, 4, 2\].*\[3, 4, 1\]"),
    ],
)
def test_members_that_are_no_distributions_are_refused_by_name(members, message) -> None:
    with pytest.raises(EnsembleError, match=message):
        combine(members)


@pytest.mark.parametrize("shape", [(5,), (5, 2, 1), (4, 2), (5, 1)])
def test_a_target_of_another_shape_is_refused_and_never_broadcast(shape) -> None:
    members = gaussians(0, (3, 5, 2))
    with pytest.raises(EnsembleError, match=r"need \[5, 2\]"):
        mixture_log_density(members["mean"], members["log_variance"], torch.zeros(shape))


def test_the_squared_error_splits_into_the_members_and_their_ambiguity() -> None:
    """Krogh & Vedelsby 1995: the ensemble's error is the mean member's less the members' spread."""
    generator = torch.Generator().manual_seed(3)
    mean_KND = torch.randn(5, 40, 2, generator=generator, dtype=torch.float64)
    target_ND = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    together_ND, _ = mix_gaussians(mean_KND, torch.zeros_like(mean_KND))
    of_members = (mean_KND - target_ND).square().mean(0)
    ambiguity = (mean_KND - together_ND).square().mean(0)
    torch.testing.assert_close((together_ND - target_ND).square(), of_members - ambiguity)
