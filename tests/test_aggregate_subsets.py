"""Laws of the mixtures of many subsets: each is the one that is combined by itself, whatever the portions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_svc.aggregate.predictions import combine
from ensemble_svc.aggregate.subsets import log_means, mixtures
from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate import portions
from ensemble_svc.evaluate.curve import size_curve
from ensemble_svc.evaluate.portions import Mixer, Subset, subset_sums
from ensemble_svc.evaluate.rows import Prediction
from ensemble_svc.spec.job import Task

law = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
tasks = pytest.mark.parametrize("task", ["classification", "regression"])
types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def problem(
    task: Task, seed: int, num_members: int, *, dtype: torch.dtype = torch.float64, scale: float = 3.0
) -> tuple[dict[str, Tensor], Tensor]:
    draw = torch.Generator().manual_seed(seed)
    if task == "classification":
        logits = torch.randn(num_members, 30, 4, generator=draw, dtype=torch.float64) * scale
        return {"log_probs": logits.log_softmax(-1).to(dtype)}, torch.randint(4, (30,), generator=draw)
    mean, log_variance = torch.randn(2, num_members, 30, 2, generator=draw, dtype=torch.float64).to(dtype)
    target = torch.randn(30, 2, generator=draw, dtype=torch.float64)
    return {"mean": mean * scale, "log_variance": log_variance}, target


def some_subsets(seed: int, num_members: int) -> list[tuple[int, ...]]:
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, num_members + 1, (12,), generator=draw).tolist()
    return [tuple(torch.randperm(num_members, generator=draw)[:size].tolist()) for size in sizes]


def together(members: Prediction, target: Tensor) -> dict[str, Tensor]:
    return combine(members, target_ND=None if "log_probs" in members else target)


def one_by_one(combine: Callable[[Mapping[str, Tensor], Tensor], Mapping[str, Tensor]]) -> Mixer:
    """The mixer that combines each subset's members anew, by (members, target) → prediction."""

    def mixer(
        members: Mapping[str, Tensor], target: Tensor
    ) -> Callable[[Sequence[Subset]], Mapping[str, Tensor]]:
        def of(subsets: Sequence[Subset]) -> Mapping[str, Tensor]:
            each = [
                combine({key: stack[list(some)] for key, stack in members.items()}, target)
                for some in subsets
            ]
            return {key: torch.stack([one[key] for one in each]) for key in each[0]}

        return of

    return mixer


@tasks
@types
@law
@given(seed=seeds, num_members=st.integers(1, 9), scale=st.sampled_from([0.1, 3.0, 3000.0]))
def test_each_mixture_is_the_one_combined_by_itself(task, dtype, seed, num_members, scale) -> None:
    members, target = problem(task, seed, num_members, dtype=dtype, scale=scale)
    subsets = some_subsets(seed, num_members)
    ours, theirs = (mixer(members, target)(subsets) for mixer in (mixtures, one_by_one(together)))
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        close = 1e-12 if ours[key].dtype == torch.float64 else 3e-7
        torch.testing.assert_close(ours[key], value, rtol=close, atol=close)


def test_what_is_far_below_all_others_and_what_is_impossible_keep_their_digits() -> None:
    """Relative to the largest member e^-3000 is 0, and 0 is what an impossible class has."""
    low, none = -3000.0, -math.inf
    rows = [[0.0, 0.0, 0.0], [low, none, -2.0], [low - math.log(3), none, none]]
    logs = torch.tensor(rows, dtype=torch.float64)
    found = log_means(logs)([(1, 2), (2,), (0, 1), (1,)])
    expected = [[low + math.log(2 / 3), none, -2 - math.log(2)], logs[2].tolist(), None, logs[1].tolist()]
    for row, wanted in zip(found.tolist(), expected, strict=True):
        assert wanted is None or row == pytest.approx(wanted, rel=1e-14)
    assert found[2].tolist() == pytest.approx(
        [-math.log(2), -math.log(2), math.log1p(math.exp(-2)) - math.log(2)]
    )


@tasks
@law
@given(seed=seeds, groups=st.integers(1, 7), numbers=st.integers(1, 2000))
def test_sums_do_not_depend_on_the_portions(task, seed, groups, numbers) -> None:
    members, target = problem(task, seed, 5)
    subsets, names = some_subsets(seed, 5), ("nll", "brier" if task == "classification" else "rmse")
    whole = subset_sums(members, target, subsets, mixtures, names, bins=15, groups=groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portions, "NUMBERS", numbers)
        cut = subset_sums(members, target, subsets, mixtures, names, bins=15, groups=groups)
    for name, sums in whole.items():
        assert sums.shape[:2] == (12, groups)
        torch.testing.assert_close(cut[name], sums, rtol=1e-12, atol=1e-12)


@tasks
def test_a_curve_has_the_metrics_of_all_rows_at_once_too(task) -> None:
    """Those that rank the rows are measured of each subset's whole prediction."""
    names = ("nll", "aurc", "accuracy") if task == "classification" else ("nll", "rmse")
    members, target = problem(task, 1, 6)
    ours, theirs = (
        size_curve(task, members, target, mixer, names=names, seed=2)
        for mixer in (mixtures, one_by_one(together))
    )
    assert [list(point) for point in ours] == [["size", *names]] * 6
    for one, other in zip(ours, theirs, strict=True):
        for name in names:
            assert one[name] == pytest.approx(other[name], rel=1e-12)


def test_the_density_of_several_gaussians_is_not_forgotten() -> None:
    members, target = problem("regression", 0, 3)
    bare = one_by_one(lambda some, _: combine(some))
    with pytest.raises(EnsembleError, match="nll of 3 Gaussian members"):
        size_curve("regression", members, target, bare, seed=0)


@pytest.mark.parametrize("at", [0, 2])
def test_a_member_that_is_no_distribution_is_named_before_anything_is_mixed(at: int) -> None:
    members, target = problem("classification", 0, 3)
    members["log_probs"][at, 4] += 0.1
    with pytest.raises(EnsembleError, match=f"member {at}: the probabilities sum to"):
        size_curve("classification", members, target, mixtures, seed=0)
