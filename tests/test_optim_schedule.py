"""Laws of the schedules: bounds, ends, and what torch's own give."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as schedulers

from ensemble_svc.optim.schedule import factor
from ensemble_svc.spec.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    Exponential,
    Inverse,
    Linear,
    OneCycle,
    StepDecay,
)

warmups = st.integers(0, 80)
SCHEDULE = {
    Constant: st.builds(Constant, warmup=warmups),
    Cosine: st.builds(Cosine, floor=st.floats(0, 1), warmup=warmups),
    Linear: st.builds(Linear, floor=st.floats(0, 1), warmup=warmups),
    StepDecay: st.builds(StepDecay, every=st.integers(1, 9), gamma=st.floats(1e-3, 1), warmup=warmups),
    Exponential: st.builds(Exponential, decay=st.floats(1, 1e6), warmup=warmups),
    Inverse: st.builds(Inverse, decay=st.floats(1, 1e6), warmup=warmups),
    OneCycle: st.builds(
        OneCycle, rise=st.floats(0.05, 0.95), start=st.floats(1.01, 100), end=st.floats(1, 1e6)
    ),
}


@pytest.mark.parametrize("choice", list(SCHEDULES), ids=lambda c: c.model_fields["name"].default)
@settings(max_examples=60)
@given(data=st.data(), total=st.integers(1, 100))
def test_factors_rise_in_the_warm_up_and_never_after(choice, data, total) -> None:
    schedule = data.draw(SCHEDULE[choice])
    factors = [factor(schedule, step, total) for step in range(total)]
    top = factors.index(max(factors)) if isinstance(schedule, OneCycle) else min(schedule.warmup, total - 1)
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


TORCHS = [
    (Cosine(floor=0.1), lambda o: schedulers.CosineAnnealingLR(o, T_max=30, eta_min=0.1)),
    (Linear(floor=0.1), lambda o: schedulers.LinearLR(o, 1.0, 0.1, total_iters=30)),
    (StepDecay(every=4, gamma=0.3), lambda o: schedulers.StepLR(o, step_size=8, gamma=0.3)),
    (Exponential(decay=50), lambda o: schedulers.ExponentialLR(o, gamma=50 ** (-1 / 30))),
    (Inverse(decay=7), lambda o: schedulers.LambdaLR(o, lambda t: 1 / (1 + 6 * t / 30))),
    (OneCycle(), lambda o: schedulers.OneCycleLR(o, max_lr=1.0, total_steps=30, cycle_momentum=False)),
    (
        OneCycle(rise=0.5, start=4, end=10),
        lambda o: schedulers.OneCycleLR(
            o, 1.0, 30, pct_start=0.5, div_factor=4, final_div_factor=10, cycle_momentum=False
        ),
    ),
]


@pytest.mark.parametrize(("schedule", "make"), TORCHS, ids=lambda v: getattr(v, "name", ""))
def test_without_warm_up_it_is_torchs(schedule, make) -> None:
    weight = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = make(optimizer)
    for step in range(30):
        assert factor(schedule, step, 30, 2) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_what_a_decay_ends_at() -> None:
    """``decay: 100`` ends at a hundredth of the rate."""
    for schedule in (Exponential(decay=100), Inverse(decay=100), Linear(floor=0.01), Cosine(floor=0.01)):
        assert factor(schedule, 9999, 10_000) == pytest.approx(0.01, rel=0.02)
