"""The forecast's jackknife over members, worked out at once: as one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.forecast import _all_subsets, _curves_without, fit_curve


def inside(num_members: int, seed: int) -> Tensor:
    chosen = _all_subsets(num_members, seed, 40)
    inside_PK = torch.zeros(len(chosen), num_members, dtype=torch.float64)
    for p, subset in enumerate(chosen):
        inside_PK[p, list(subset)] = 1
    return inside_PK


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 150), st.integers(0, 2**32 - 1))
def test_the_curves_without_each_member_are_those_of_the_subsets_it_is_not_in(
    members: int, seed: int
) -> None:
    inside_PK = inside(members, seed)
    value_P = torch.rand(len(inside_PK), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = _curves_without(inside_PK, value_P)
    for k in range(0, members, 7):
        left_P = inside_PK[:, k] == 0
        sizes = inside_PK[left_P].sum(dim=1)
        means = {float(size): value_P[left_P][sizes == size].mean().item() for size in sizes.unique()}
        want = fit_curve([int(size) for size in means], list(means.values()))
        torch.testing.assert_close(torch.tensor(found[k]), torch.tensor(want), rtol=1e-9, atol=1e-9)


def test_a_metric_that_is_not_finite_has_no_curve() -> None:
    inside_PK = inside(20, 0)
    with pytest.raises(EnsembleError, match="no finite metric"):
        _curves_without(inside_PK, torch.full((len(inside_PK),), torch.inf, dtype=torch.float64))
