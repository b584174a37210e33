"""What is seen of layers is what is defined, and each fault of a course is named with its layer and epoch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ensemble_svc.nn.heads import loss_rows
from ensemble_svc.spec.losses import CrossEntropy, GaussianNll, Mse
from ensemble_svc.vitals.course import Course, findings_of
from ensemble_svc.vitals.guess import guessing
from ensemble_svc.vitals.sample import Sample, alike, listening, seen, spots_of
from ensemble_svc.vitals.sick import MARGIN, sickness
from ensemble_svc.vitals.watching import SATURATED, activity

ACTIVATIONS = [nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.ELU(), nn.GELU()]


@pytest.mark.parametrize("module", ACTIVATIONS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("places", [(), (3, 2)])
def test_members_at_once_are_seen_as_one_by_one(module, places):
    out_KBU = module(2 * torch.randn(4, 30, 5, *places) - 3)
    for own, told in zip(out_KBU, seen(module, out_KBU), strict=True):
        wanted = activity(module, own)
        for value, expected in zip(
            told.tolist(), (wanted.mean, wanted.std, wanted.saturated, wanted.dead), strict=True
        ):
            assert (value != value) == (expected is None)
            if expected is not None:
                assert value == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("module", [nn.Tanh(), nn.Sigmoid()], ids=["tanh", "sigmoid"])
def test_an_output_on_the_bound_of_saturation_is_seen_alike(module):
    out_KBU = torch.tensor(SATURATED[type(module)]).repeat(2, 3, 1)
    assert (
        seen(module, out_KBU)[:, 2].tolist() == [activity(module, own).saturated for own in out_KBU] == [0, 0]
    )


def test_spots_are_layers_with_the_activation_behind_them():
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3), nn.Dropout(), nn.ReLU(), nn.Linear(3, 2))
    assert [(spot.weight, spot.kind) for spot in spots_of(net)] == [
        ("0.weight", "tanh"),
        ("2.weight", "relu"),
        ("5.weight", ""),
    ]
    with listening(spots_of(net), None) as heard:
        net(torch.randn(7, 4))
    assert set(heard) == {0, 1}
    assert not any(module._forward_hooks for module in net.modules())


def test_alike_are_units_with_the_same_weights():
    weight_K = torch.randn(3, 4, 5)
    weight_K[1] = weight_K[1, :1]
    assert alike(weight_K).tolist() == [0, 1, 0]
    assert alike(torch.randn(2, 1, 5)).tolist() == [0, 0]


@given(st.lists(st.integers(0, 3), min_size=5, max_size=60), st.sampled_from([0.0, 0.1, 0.5]))
def test_no_constant_answer_beats_guessing_in_classes(classes, smoothing):
    y = torch.tensor(classes)
    loss = CrossEntropy(label_smoothing=smoothing)
    guess = guessing(loss, y, 4)
    for seed in range(5):
        logits = torch.randn(4, generator=torch.Generator().manual_seed(seed)).expand(len(y), 4)
        assert loss_rows(loss, logits, y).mean().item() >= guess - 1e-5
    shares = (1 - smoothing) * y.bincount(minlength=4) / len(y) + smoothing / 4
    best = loss_rows(loss, shares.clamp_min(1e-9).log().expand(len(y), 4), y).mean().item()
    assert best == pytest.approx(guess, abs=1e-4)


def test_no_constant_answer_beats_guessing_in_numbers():
    y = torch.randn(200, 2) * torch.tensor([1.0, 3.0]) + 2
    assert guessing(Mse(), y) == pytest.approx(((y - y.mean(0)) ** 2).sum(1).mean().item(), rel=1e-5)
    normal = torch.distributions.Normal(y.mean(0), y.std(0, correction=0))
    assert guessing(GaussianNll(), y) == pytest.approx(-normal.log_prob(y).sum(1).mean().item(), rel=1e-5)


def rows(losses: list[float], nll: list[float] | None = None, rate: float = 0.1) -> list[dict[str, Any]]:
    found = [
        {"epoch": n, "train_loss": loss, "learning_rate": rate, "seconds": 1.0}
        for n, loss in enumerate(losses, 1)
    ]
    return [row | {"val_nll": value} for row, value in zip(found, nll, strict=True)] if nll else found


class TestSick:
    @given(st.lists(st.floats(0.1, 5), min_size=1, max_size=8), st.data())
    def test_it_is_what_the_definition_says(self, losses, data):
        kept = data.draw(st.integers(0, len(losses)))
        found = sickness(rows(losses), diverged="", kept=kept, guess=2.0, classes=True)
        better = [loss < 2.0 - MARGIN for loss in losses]
        well = kept > 0 and better[kept - 1]
        assert (found is None) == well
        if found is not None:
            assert found.reason.startswith("collapsed" if any(better) else "never")

    def test_divergence_is_sickness_whatever_was_reached(self):
        found = sickness(rows([0.1]), diverged="not finite", kept=1, guess=2.0, classes=True)
        assert found is not None
        assert (found.kind, found.reason) == ("divergence", "not finite")

    def test_validation_that_beats_guessing_is_enough_for_classes(self):
        history = rows([2.0, 2.0], [1.9, 1.0])
        assert sickness(history, diverged="", kept=2, guess=2.0, classes=True) is None
        assert sickness(history, diverged="", kept=2, guess=2.0, classes=False) is not None

    def test_mixed_numbers_are_judged_by_the_rows_as_they_are(self):
        """In training any constant beats guessing on them, as the history says here."""
        history = rows([0.6, 0.6])
        assert sickness(history, diverged="", kept=2, guess=1.0, classes=False) is None
        found = sickness(history, diverged="", kept=2, guess=1.0, classes=False, unmixed=1.0)
        assert found is not None
        assert found.kind == "guessing"
        assert found.reason.startswith("no better than guessing")
        assert sickness(history, diverged="", kept=2, guess=1.0, classes=False, unmixed=0.9) is None


def sample(epoch: int, layers: int = 3, **changes: Any) -> Sample:
    well: dict[str, Any] = {
        "mean": 0.5,
        "std": 1.0,
        "saturated": 0.1,
        "dead": 0.05,
        "gradient": 1.0,
        "weight": 5.0,
        "update": 1e-3,
        "alike": 0.0,
    }
    return Sample(epoch, **{name: changes.get(name, (value,) * layers) for name, value in well.items()})


def course(**changes: Any) -> Course:
    well = Course(
        history=rows([2.0, 1.5, 1.2, 1.0, 0.8, 0.7, 0.6, 0.5], [1.9, 1.6, 1.4, 1.2, 1.1, 1.0, 1.0, 0.95]),
        samples=[sample(n) for n in (1, 2, 4, 8)],
        sick=None,
        guess=2.3,
        weights=(100, 100, 100),
        stops_early=False,
    )
    return replace(well, **changes)


def kinds(found: Course) -> list[str]:
    return [finding.kind for finding in findings_of(found)]


class TestCourse:
    def test_a_healthy_one_is_left_in_peace(self):
        assert findings_of(course()) == []
        assert findings_of(course(samples=[])) == []

    def test_dead_units_with_layer_share_and_epoch(self):
        dead = [sample(1)] + [sample(n, dead=(0.0, 0.1, 0.41)) for n in (2, 4, 8)]
        (found,) = findings_of(course(samples=dead))
        assert found.sentence.startswith("Layer 3: 41% of the units are dead since epoch 2:")
        assert "leaky_relu" in found.sentence

    def test_saturation(self):
        flat = [sample(1), sample(2, saturated=(0.9, 0.8, None)), sample(4, saturated=(0.7, 0.6, None))]
        (found,) = findings_of(course(samples=flat))
        assert found.sentence.startswith("Layer 1: 70% of the outputs are saturated since epoch 2")
        assert "in 2 layers" in found.sentence

    def test_vanishing_and_exploding_gradients(self):
        lost = [sample(1), sample(8, gradient=(1e-5, 1.0, 1.0))]
        assert "Layer 1" in findings_of(course(samples=lost))[0].sentence
        grown = [sample(1), sample(8, gradient=(500.0, 500.0, 500.0))]
        stuck = rows([2.0, 2.1, 2.2])
        assert "explodes" in findings_of(course(samples=grown, history=stuck))[0].sentence
        assert kinds(course(samples=grown)) == []

    @pytest.mark.parametrize(("size", "words"), [(0.3, "by 30%"), (1e-8, "by more than 1e-08")])
    def test_steps_too_large_and_too_small(self, size, words):
        (found,) = findings_of(course(samples=[sample(n, update=(size,) * 3) for n in (1, 2, 4)]))
        assert words in found.sentence
        assert "training.optimizer.lr" in found.sentence

    def test_a_plateau_is_flat_at_full_rate_with_a_small_gradient(self):
        history = rows([2.0, 1.5, 1.0, *[0.9] * 9])
        calm = [sample(1), sample(12, gradient=(0.01, 0.01, 0.01))]
        (found,) = findings_of(course(history=history, samples=calm))
        assert "has not moved since epoch 9" in found.sentence
        assert kinds(course(history=history)) == []  # the gradient is large
        slow = [row | {"learning_rate": 0.1 if row["epoch"] < 5 else 1e-3} for row in history]
        assert kinds(course(history=slow, samples=calm)) == []  # the schedule's doing

    def test_overfitting_from_the_best_epoch_on(self):
        history = rows([2.0, 1.5, 1.0, 0.7, 0.5, 0.3, 0.2], [1.9, 1.5, 1.2, 1.1, 1.2, 1.4, 1.7])
        (found,) = findings_of(course(history=history))
        assert found.sentence.startswith("Overfitting from epoch 4 on")
        assert kinds(course(history=history, stops_early=True)) == []
        assert "Use training.early_stopping" in found.sentence
        (fixed,) = findings_of(course(history=history, may_stop=False))
        assert "early_stopping" not in fixed.sentence
        assert "Use fewer training.epochs" in fixed.sentence

    def test_a_sick_one_says_first_what_makes_it_sick(self):
        history = rows([2.3, 2.3])
        verdict = sickness(history, diverged="", kept=2, guess=2.3, classes=True)
        twins = [sample(2, alike=(1.0, 0.0, 0.0), dead=(0.9, 0.0, 0.0))]
        found = findings_of(course(history=history, sick=verdict, samples=twins))
        assert [finding.kind for finding in found] == ["guessing", "dead"]
        assert "All units of layer 1 have the same weights" in found[0].sentence

    def test_divergence_names_epoch_and_rate(self):
        history = rows([2.0, float("nan")], rate=3.0)
        verdict = sickness(
            history, diverged="not finite at step 5 of epoch 2", kept=1, guess=2.3, classes=True
        )
        (found,) = findings_of(course(history=history, sick=verdict))
        assert "epoch 2, at a learning rate of 3" in found.sentence
        assert "on_sick" in found.sentence
        assert "on_sick" not in findings_of(course(history=history, sick=verdict, halves=True))[0].sentence


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=8, max_size=8))
def test_a_sample_survives_json(values):
    told = Sample.of(3, [[value] for value in values])
    assert Sample.from_json(told.to_json()) == told
    assert all(isinstance(number, float | None) for number in vars(told)["mean"])
