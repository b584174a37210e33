"""Laws of the Brier score's parts and of the calibration errors, against their definitions written as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.calibration_error import (
    GRID,
    adaptive_error,
    brier_parts,
    classwise_error,
    smooth_error,
    smooth_gap,
)
from ensemble_svc.evaluate.metrics import measure

law = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**32 - 1)
rows = st.integers(1, 60)
classes = st.integers(2, 5)
bins = st.integers(1, 20)
ERRORS = {
    "adaptive": adaptive_error,
    "classwise": classwise_error,
    "smooth": lambda p, y, bins=1: smooth_error(p, y),
}
every_error = pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)


def classifier(seed: int, num_rows: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Some rows certain, some twice, targets that the prediction knows something of."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_rows, num_classes, generator=generator, dtype=torch.float64) * 3
    logits[num_rows // 2 :] = logits[: num_rows - num_rows // 2].clone()
    logits[torch.rand(num_rows, generator=generator) < 0.1] *= 300
    log_probs = logits.log_softmax(-1)
    return log_probs, torch.multinomial(log_probs.exp().sqrt(), 1, generator=generator)[:, 0]


@law
@given(seeds, rows, classes, bins)
def test_the_parts_add_up_to_the_brier_score(seed, num_rows, num_classes, num_bins) -> None:
    log_probs, target = classifier(seed, num_rows, num_classes)
    parts = brier_parts(log_probs, target, bins=num_bins)
    score = measure("classification", {"log_probs": log_probs}, target, names=["brier"])["brier"]
    assert parts.brier == pytest.approx(score, abs=1e-12)
    assert min(parts.reliability, parts.resolution, parts.uncertainty) >= 0


@law
@given(seeds, rows, classes)
def test_of_probabilities_constant_in_each_bin_nothing_is_hidden(seed, num_rows, num_classes) -> None:
    """The split as Murphy (1973) has it: with one probability per bin, reliability - resolution + uncertainty."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(1, 5, (num_rows,), generator=generator).double() / 5 * 0.9
    rest = (1 - first)[:, None].expand(-1, num_classes - 1) / (num_classes - 1)
    target = torch.randint(num_classes, (num_rows,), generator=generator)
    parts = brier_parts(torch.cat([first[:, None], rest], dim=1).log(), target, bins=1000)
    assert parts.within_bins == pytest.approx(0, abs=1e-12)


def test_a_prediction_of_the_frequencies_is_reliable_and_resolves_nothing() -> None:
    target = torch.tensor([0, 0, 0, 1])
    parts = brier_parts(torch.tensor([[0.75, 0.25]], dtype=torch.float64).log().expand(4, 2), target)
    assert parts.reliability == pytest.approx(0)
    assert parts.resolution == pytest.approx(0)
    assert parts.uncertainty == pytest.approx(2 * 0.75 * 0.25)


@every_error
@law
@given(seeds, rows, classes, bins)
def test_an_error_does_not_depend_on_the_order_of_the_rows(
    error, seed, num_rows, num_classes, num_bins
) -> None:
    log_probs, target = classifier(seed, num_rows, num_classes)
    order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed))
    value = error(log_probs, target, bins=num_bins)
    assert 0 <= value <= 1
    assert error(log_probs[order], target[order], bins=num_bins) == pytest.approx(value, abs=1e-6)


@every_error
def test_of_calibrated_predictions_it_falls_with_the_rows_and_of_others_not(error) -> None:
    values = {}
    for sharpness in (1.0, 3.0):
        for num_rows in (500, 50_000):
            generator = torch.Generator().manual_seed(0)
            logits = torch.randn(num_rows, 3, generator=generator, dtype=torch.float64) * 1.5
            target = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
            values[sharpness, num_rows] = error((logits * sharpness).log_softmax(-1), target, bins=15)
    assert values[1.0, 50_000] < min(0.012, values[1.0, 500])
    assert values[3.0, 50_000] > 0.05


@law
@given(seeds, rows, classes, bins)
def test_the_adaptive_error_is_its_definition(seed, num_rows, num_classes, num_bins) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(num_rows, num_classes, generator=generator, dtype=torch.float64).log_softmax(-1)
    target = torch.randint(num_classes, (num_rows,), generator=generator)
    confidence, predicted = log_probs.exp().max(-1)
    order = np.argsort(confidence.numpy())
    gap = (confidence - (predicted == target).double()).numpy()[order]
    expected = sum(abs(part.sum()) for part in np.array_split(gap, num_bins)) / num_rows
    assert adaptive_error(log_probs, target, bins=num_bins) == pytest.approx(expected, abs=1e-12)


@law
@given(seeds, rows, classes)
def test_the_classwise_error_is_the_mean_of_torchmetrics_own(seed, num_rows, num_classes) -> None:
    log_probs, target = classifier(seed, num_rows, num_classes)
    log_probs = log_probs.exp().clamp(1e-6, 1 - 1e-6).log().log_softmax(-1)
    peers = [
        binary_calibration_error(log_probs[:, c].exp(), (target == c).long(), n_bins=10, norm="l1")
        for c in range(num_classes)
    ]
    ours = classwise_error(log_probs, target, bins=10)
    assert ours == pytest.approx(torch.stack(peers).double().mean().item(), abs=2e-6)


def plain_smooth(at: np.ndarray, gap: np.ndarray, width: float) -> float:
    """Błasiok & Nakkiran's definition on a fine grid: images of the Gaussian at both ends, then the integral."""
    grid = (np.arange(4000) + 0.5) / 4000
    density = np.zeros((len(grid), len(at)))
    for turn in range(-3, 4):
        for image in (at + 2 * turn, -at + 2 * turn):
            density += np.exp(-0.5 * ((grid[:, None] - image) / width) ** 2)
    smoothed = (density * gap).sum(1) / (width * math.sqrt(2 * math.pi)) / len(at)
    return np.abs(smoothed).mean()


@settings(max_examples=10, deadline=None)
@given(seeds, st.integers(1, 30))
def test_the_smooth_error_is_the_fixed_point_of_its_definition(seed, num_rows) -> None:
    generator = np.random.default_rng(seed)
    at, gap = generator.uniform(size=num_rows), generator.uniform(-1, 1, size=num_rows)
    value = smooth_gap(torch.tensor(at), torch.tensor(gap))
    if value > 3 / GRID:
        assert plain_smooth(at, gap, value) == pytest.approx(value, abs=1.5 / GRID)


def test_a_constant_gap_is_the_smooth_error_whatever_the_width() -> None:
    log_probs = torch.tensor([[0.9, 0.1]], dtype=torch.float64).log().expand(10, 2)
    target = torch.tensor([0] * 6 + [1] * 4)
    assert smooth_error(log_probs, target) == pytest.approx(0.3, abs=1e-3)


def test_bad_input_is_refused() -> None:
    log_probs, target = classifier(0, 4, 3)
    for wrong in (
        lambda: brier_parts(log_probs, target, bins=0),
        lambda: adaptive_error(log_probs, target[:-1]),
        lambda: classwise_error(log_probs, target + 3),
        lambda: smooth_error(log_probs * 2, target),
    ):
        with pytest.raises(EnsembleError):
            wrong()
