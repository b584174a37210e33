"""Laws of the moving average: an explicit weighted mean of all weights so far."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_svc.optim.average import ema_update

decays = st.floats(0.01, 0.999)


def weights_at(t: int, num_members: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(t)
    return {
        "weight": torch.randn(num_members, 3, 2, generator=generator, dtype=dtype),
        "scalar": torch.randn(num_members, generator=generator, dtype=dtype),
        "num_batches_tracked": torch.full((num_members,), t),
    }


def averaged(
    decay_K: Tensor | float, num_updates: int, num_members: int, dtype=torch.float64
) -> dict[str, Tensor]:
    average = {name: torch.full_like(w, 77) for name, w in weights_at(0, num_members, dtype).items()}
    for t in range(1, num_updates + 1):
        ema_update(average, weights_at(t, num_members, dtype), decay_K, t)
    return average


@settings(max_examples=30)
@given(decay=decays, num_updates=st.integers(1, 20))
def test_it_is_the_weighted_mean_of_all_so_far(decay, num_updates) -> None:
    average = averaged(decay, num_updates, 2)
    shares = torch.tensor(
        [decay ** (num_updates - t) for t in range(1, num_updates + 1)], dtype=torch.float64
    )
    shares /= shares.sum()
    for name in ("weight", "scalar"):
        each = torch.stack([weights_at(t, 2)[name] for t in range(1, num_updates + 1)])
        torch.testing.assert_close(
            average[name], torch.tensordot(shares, each, dims=1), rtol=1e-9, atol=1e-12
        )
    assert average["num_batches_tracked"].tolist() == [num_updates] * 2


@settings(max_examples=20)
@given(decay_K=st.lists(decays, min_size=1, max_size=4), num_updates=st.integers(1, 10))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_members_with_their_own_decays_are_each_as_alone(decay_K, num_updates, dtype) -> None:
    num_members = len(decay_K)
    together = averaged(torch.tensor(decay_K, dtype=torch.float64), num_updates, num_members, dtype)
    for k, decay in enumerate(decay_K):
        alone = averaged(decay, num_updates, num_members, dtype)
        for name, value in together.items():
            rtol = 1e-5 if dtype == torch.float32 else 1e-11
            torch.testing.assert_close(value[k], alone[name][k], rtol=rtol, atol=rtol)


@settings(max_examples=20)
@given(decay=decays, num_updates=st.integers(1, 30), value=st.floats(-1e6, 1e6, width=32))
def test_a_constant_stays_what_it_is(decay, num_updates, value) -> None:
    average, constant = {"w": torch.zeros(2, 3)}, {"w": torch.full((2, 3), value)}
    for t in range(1, num_updates + 1):
        ema_update(average, constant, torch.tensor([decay, 0.5]), t)
        assert torch.equal(average["w"], constant["w"])


def test_the_first_update_copies_whatever_was_there() -> None:
    average = {"w": torch.full((2,), float("nan")), "n": torch.zeros(2, dtype=torch.int64)}
    weights = {"w": torch.ones(2, requires_grad=True), "n": torch.full((2,), 5), "more": torch.ones(1)}
    ema_update(average, weights, 0.9, 1)
    assert average["w"].tolist() == [1.0, 1.0]
    assert average["n"].tolist() == [5, 5]
    assert not average["w"].requires_grad
    ema_update(average, weights, torch.tensor([0.9, 0.9]), 2)
    assert not average["w"].requires_grad
