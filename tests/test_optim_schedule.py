"""Laws of the schedules: bounds, ends, and what torch's own give."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_svc.optim.schedule import factor
from ensemble_svc.spec.training import SCHEDULES, Constant, Cosine

SCHEDULE = {
    Constant: st.builds(Constant),
    Cosine: st.builds(Cosine, floor=st.floats(0, 1), warmup=st.integers(0, 80)),
}


@pytest.mark.parametrize("choice", list(SCHEDULES), ids=lambda c: c.model_fields["name"].default)
@settings(max_examples=60)
@given(data=st.data(), total=st.integers(1, 100))
def test_factors_rise_in_the_warm_up_and_never_after(choice, data, total) -> None:
    schedule = data.draw(SCHEDULE[choice])
    factors = [factor(schedule, step, total) for step in range(total)]
    top = min(getattr(schedule, "warmup", 0), total - 1)
    assert all(0 < f <= 1 for f in factors)
    assert all(a < b for a, b in pairwise(factors[: top + 1]))
    assert all(a >= b for a, b in pairwise(factors[top:]))
    assert factor(schedule, total, total) == factor(schedule, total + 7, total) == factors[-1]


@settings(max_examples=60)
@given(floor=st.floats(0, 1), warmup=st.integers(0, 50), total=st.integers(2000, 5000))
def test_the_cosine_starts_at_one_and_ends_near_its_floor(floor, warmup, total) -> None:
    schedule = Cosine(floor=floor, warmup=warmup)
    assert factor(schedule, warmup, total) == pytest.approx(1.0)
    assert floor <= factor(schedule, total - 1, total) <= floor + 1e-5
    middle = warmup + (total - warmup) / 2
    assert factor(schedule, round(middle), total) == pytest.approx((1 + floor) / 2, abs=1e-3)


def test_without_warm_up_it_is_torchs() -> None:
    weight = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30, eta_min=0.1)
    for step in range(30):
        assert factor(Cosine(floor=0.1), step, 30) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()
