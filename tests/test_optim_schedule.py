"""Laws of the schedules: bounds, ends, and what torch's own give."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from law_runs import Killed, assert_close, assert_same_bits, both, dying, job_of, payload_of, train
from torch.optim import lr_scheduler as schedulers

from ensemble_svc.optim.plateau import Descent
from ensemble_svc.optim.schedule import factor
from ensemble_svc.spec.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    Cyclic,
    Exponential,
    Inverse,
    Linear,
    OneCycle,
    Plateau,
    StepDecay,
)
from ensemble_svc.store.members import sealed

warmups = st.integers(0, 80)
SCHEDULE = {
    Constant: st.builds(Constant, warmup=warmups),
    Cosine: st.builds(Cosine, floor=st.floats(0, 1), warmup=warmups),
    Linear: st.builds(Linear, floor=st.floats(0, 1), warmup=warmups),
    StepDecay: st.builds(StepDecay, every=st.integers(1, 9), gamma=st.floats(1e-3, 1), warmup=warmups),
    Exponential: st.builds(Exponential, decay=st.floats(1, 1e6), warmup=warmups),
    Inverse: st.builds(Inverse, decay=st.floats(1, 1e6), warmup=warmups),
    Plateau: st.builds(Plateau, warmup=warmups),
    OneCycle: st.builds(
        OneCycle, rise=st.floats(0.05, 0.95), start=st.floats(1.01, 100), end=st.floats(1, 1e6)
    ),
}


@pytest.mark.parametrize(
    "choice", [c for c in SCHEDULES if c is not Cyclic], ids=lambda c: c.model_fields["name"].default
)
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
@given(cycles=st.integers(1, 9), floor=st.floats(0, 0.99), total=st.integers(1, 100))
def test_cycles_fall_and_rise_only_at_their_beginnings(cycles, floor, total) -> None:
    """Also where the steps do not divide into them."""
    factors = [factor(Cyclic(cycles=cycles, floor=floor), step, total) for step in range(total)]
    rises = [step for step in range(1, total) if factors[step] > factors[step - 1]]
    assert all(0 < f <= 1 for f in factors)
    assert factors[0] == 1
    assert {step * cycles // total for step in rises} <= set(range(1, cycles))
    assert all(step * cycles // total > (step - 1) * cycles // total for step in rises)


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
    (
        Cyclic(cycles=5, floor=0.1),
        lambda o: schedulers.CosineAnnealingWarmRestarts(o, T_0=6, eta_min=0.1),
    ),
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


@pytest.mark.parametrize("warmup", [0, 100])
@pytest.mark.parametrize(
    "choice",
    [c for c in SCHEDULES if "decay" in c.model_fields],
    ids=lambda c: c.model_fields["name"].default,
)
def test_a_decay_of_a_hundred_ends_at_a_hundredth(choice, warmup) -> None:
    schedule = choice(decay=100.0, warmup=warmup)
    assert factor(schedule, 9999, 10_000, 100) == pytest.approx(0.01, rel=0.02)
    assert factor(schedule, warmup, 10_000, 100) == 1.0


@settings(max_examples=60)
@given(every=st.integers(1, 5), epochs=st.integers(2, 30), decay=st.floats(1.01, 1e4))
def test_the_drops_of_a_step_decay_are_alike_and_lead_to_its_end(every, epochs, decay) -> None:
    assume(every < epochs)
    factors = [factor(StepDecay(every=every, decay=decay), step, 4 * epochs, 4) for step in range(4 * epochs)]
    drops = [b / a for a, b in pairwise(factors) if b < a]
    assert len(drops) == (epochs - 1) // every
    assert drops == pytest.approx([drops[0]] * len(drops))
    assert factors[-1] == pytest.approx(1 / decay)


def test_a_floor_is_the_end_that_a_decay_tells_otherwise() -> None:
    for kind in (Cosine, Linear):
        for step in range(50):
            assert factor(kind(decay=8.0), step, 50) == factor(kind(floor=0.125), step, 50)


class TestPlateau:
    """The factor of a member that no longer improves."""

    @settings(max_examples=80)
    @given(data=st.data(), metric=st.sampled_from(["nll", "accuracy", "train_loss"]))
    def test_it_is_torchs(self, data, metric) -> None:
        scores = st.floats(0, 2) | st.sampled_from([0.0, 0.5, 0.5 - 1e-6, math.nan, math.inf])
        values = data.draw(st.lists(scores, min_size=1, max_size=40))
        schedule = data.draw(
            st.builds(
                Plateau,
                metric=st.just(metric),
                factor=st.floats(0.05, 0.9),
                patience=st.integers(0, 4),
                threshold=st.sampled_from([0.0, 1e-4, 0.3]),
                floor=st.sampled_from([0.0, 0.02, 0.3]),
            )
        )
        optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1.0)
        theirs = schedulers.ReduceLROnPlateau(
            optimizer,
            mode="max" if metric == "accuracy" else "min",
            factor=schedule.factor,
            patience=schedule.patience,
            threshold=schedule.threshold,
            min_lr=schedule.floor,
            eps=0.0,
        )
        descent = Descent(schedule)
        for value in values:
            theirs.step(value)
            descent.see(
                {
                    "train_loss": value if metric == "train_loss" else 7.0,
                    f"val_{metric}": value,
                    "val_rmse": 3.0,
                }
            )
            assert descent.lowered == pytest.approx(max(optimizer.param_groups[0]["lr"], 1e-30), rel=1e-12)

    def test_without_validation_rows_the_training_loss_is_watched(self) -> None:
        descent = Descent(Plateau(patience=0))
        for value in (1.0, 0.5, 0.6):
            descent.see({"epoch": 1, "train_loss": value})
        assert descent.lowered == 0.1

    def test_a_likelihood_below_zero_improves_by_growing_in_size(self) -> None:
        descent = Descent(Plateau(patience=0, threshold=0.1))
        for value, lowered in ((-1.0, 1.0), (-1.05, 0.1), (-1.2, 0.1), (-1.2, 0.01)):
            descent.see({"train_loss": 0.0, "val_nll": value})
            assert descent.lowered == pytest.approx(lowered)


def history(run: Path, event: dict[str, Any]) -> list[dict[str, float]]:
    return pd.read_parquet(run / "members" / event["member"] / "history.parquet").to_dict("records")


class TestPlateausInTraining:
    """Each member at its own plateaus, in a pack or alone, resumed or not."""

    JOB: ClassVar[dict[str, Any]] = {
        "training__epochs": 8,
        "training__optimizer": {"name": "sgd", "lr": 0.4, "momentum": 0.5},
        "training__schedule": {
            "name": "plateau",
            "metric": "accuracy",
            "patience": 0,
            "factor": 0.3,
            "warmup": 5,
        },
        "model": {"name": "mlp", "hidden": (16,), "activation": "tanh"},
        "ensemble": {"members": 4, "resample": "bootstrap"},
    }

    @staticmethod
    def rates(run: Path) -> dict[int, list[float]]:
        found = {}
        for event in sealed(run).values():
            found[event["index"]] = [row["learning_rate"] for row in history(run, event)]
        return found

    def test_packed_is_alone_and_members_part(self, tmp_path):
        assert_close(*both(job_of(**self.JOB), tmp_path))
        packed, alone = self.rates(tmp_path / "packed"), self.rates(tmp_path / "alone")
        assert packed == alone
        assert len({tuple(rates) for rates in packed.values()}) > 1
        assert min(rates[-1] for rates in packed.values()) < 0.4

    def test_the_rates_follow_from_the_history(self, tmp_path):
        job = job_of(**self.JOB)
        train(job, tmp_path)
        for event in sealed(tmp_path).values():
            descent = Descent(job.training.schedule)
            for row in history(tmp_path, event):
                assert row["learning_rate"] == pytest.approx(0.4 * descent.lowered)
                descent.see(row)

    @pytest.mark.parametrize("pack", ["auto", "off"])
    @pytest.mark.parametrize("epoch", [2, 5, 7])
    def test_killed_it_goes_on_to_the_same_bits(self, pack, epoch, tmp_path):
        job = job_of(**self.JOB, compute__pack=pack)
        undisturbed = train(job, tmp_path / "a", commit_every_s=0)
        with pytest.raises(Killed):
            train(job, tmp_path / "b", report=dying(epoch), commit_every_s=0)
        assert_same_bits(undisturbed, train(job, tmp_path / "b", commit_every_s=0))

    def test_beside_members_of_other_schedules_that_stop_early(self, tmp_path):
        job = job_of(
            **self.JOB,
            training__early_stopping={"patience": 2},
            ensemble__vary={
                "training.schedule": (
                    {"name": "plateau", "patience": 0, "threshold": 0.2},
                    "cosine",
                    {"name": "plateau", "metric": "accuracy", "patience": 0},
                ),
            },
        )
        assert len(payload_of(job, tmp_path)[1].slots) == 1
        assert_close(*both(job, tmp_path))

    def test_without_validation_rows(self, tmp_path):
        job = job_of(
            **{**self.JOB, "data": {"source": "digits", "preprocess": ("standardize",), "validation": 0.0}}
        )
        assert_close(*both(job, tmp_path))
