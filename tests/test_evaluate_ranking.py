"""Laws of measures that depend on an order: selective risk, detection, top k, slices and doubts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve, top_k_accuracy_score
from torch import Tensor

from ensemble_svc.aggregate.doubt import DOUBTS, energy
from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.detection import detect
from ensemble_svc.evaluate.metrics import METRICS, measure
from ensemble_svc.evaluate.selective import aurc, excess_aurc, risk_coverage
from ensemble_svc.evaluate.slices import by_class, by_slice
from ensemble_svc.evaluate.topk import top_k_accuracy

law = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
rows = st.integers(1, 40)


def doubts(seed: int, num_rows: int, shift: float = 0) -> Tensor:
    """Rounded, so that many are equal."""
    drawn = torch.randn(num_rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return ((drawn + shift) * 4).round() / 4


def classifier(seed: int, num_rows: int, num_classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_rows, num_classes, generator=generator, dtype=torch.float64)
    return logits.log_softmax(-1), torch.randint(num_classes, (num_rows,), generator=generator)


@law
@given(seeds, rows, rows)
def test_detection_is_scikit_learns(seed, num_in, num_out) -> None:
    inside, outside = doubts(seed, num_in), doubts(seed + 1, num_out, shift=0.7)
    found = detect(inside, outside)
    labels = np.r_[np.zeros(num_in), np.ones(num_out)]
    scores = torch.cat([inside, outside]).numpy()
    assert found.auroc == pytest.approx(roc_auc_score(labels, scores))
    assert found.aupr_out == pytest.approx(average_precision_score(labels, scores))
    assert found.aupr_in == pytest.approx(average_precision_score(1 - labels, -scores))
    false, true, _ = roc_curve(1 - labels, -scores, drop_intermediate=False)
    assert found.fpr95 == pytest.approx(false[np.argmax(true >= 0.95 - 1e-12)])


@law
@given(seeds, rows, rows)
def test_detection_depends_on_the_order_alone(seed, num_in, num_out) -> None:
    inside, outside = doubts(seed, num_in), doubts(seed + 1, num_out)
    assert detect(inside.exp() * 3, outside.exp() * 3) == detect(inside, outside)
    assert detect(outside, inside).auroc == pytest.approx(1 - detect(inside, outside).auroc)


def test_rows_told_apart_wholly_and_not_at_all() -> None:
    apart = detect(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0]))
    assert (apart.auroc, apart.aupr_in, apart.aupr_out, apart.fpr95) == (1, 1, 1, 0)
    same = detect(torch.zeros(3), torch.zeros(1))
    assert (same.auroc, same.aupr_out, same.aupr_in, same.fpr95) == (0.5, 0.25, 0.75, 1)
    with pytest.raises(EnsembleError, match="usual rows have shape"):
        detect(torch.zeros(0), torch.zeros(1))
    with pytest.raises(EnsembleError, match="rows from elsewhere"):
        detect(torch.zeros(1), torch.tensor([torch.nan]))


@law
@given(seeds, rows)
def test_the_risk_is_the_mean_over_every_order_of_equal_doubts(seed, num_rows) -> None:
    generator = np.random.default_rng(seed)
    loss, doubt = generator.integers(0, 2, num_rows).astype(float), generator.integers(0, 4, num_rows)
    drawn = np.zeros(num_rows)
    for value in np.unique(doubt):  # expected risk of the i-th answer, by hand
        tied = np.flatnonzero(doubt == value)
        before = np.flatnonzero(doubt < value)
        for i in range(1, len(tied) + 1):
            drawn[len(before) + i - 1] = (loss[before].sum() + i * loss[tied].mean()) / (len(before) + i)
    ours = risk_coverage(torch.tensor(loss), torch.tensor(doubt))
    np.testing.assert_allclose(ours.numpy(), drawn, atol=1e-12)
    assert ours[-1].item() == pytest.approx(loss.mean())
    assert aurc(torch.tensor(loss), torch.tensor(doubt)) == pytest.approx(drawn.mean())


@law
@given(seeds, rows)
def test_no_ranking_has_less_area_than_that_by_the_loss(seed, num_rows) -> None:
    loss = torch.rand(num_rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert excess_aurc(loss, doubts(seed + 1, num_rows)) >= -1e-12
    assert excess_aurc(loss, loss * 2 + 1) == pytest.approx(0, abs=1e-12)
    assert aurc(loss, torch.zeros(num_rows)) == pytest.approx(loss.mean().item())


def test_losses_that_cannot_be_ranked_are_refused() -> None:
    for loss, doubt in ((torch.zeros(2), torch.zeros(3)), (torch.zeros(0), torch.zeros(0))):
        with pytest.raises(EnsembleError, match="with at least one row"):
            aurc(loss, doubt)
    with pytest.raises(EnsembleError, match="not all finite"):
        aurc(torch.zeros(1), torch.tensor([torch.nan]))


@law
@given(seeds, rows, st.integers(3, 8), st.integers(1, 9))
def test_top_k_is_scikit_learns(seed, num_rows, num_classes, k) -> None:
    log_probs, target = classifier(seed, num_rows, num_classes)
    ours = top_k_accuracy(log_probs, target, k)
    if k >= num_classes:
        assert ours == 1
    else:
        labels = range(num_classes)
        assert ours == pytest.approx(top_k_accuracy_score(target, log_probs.exp(), k=k, labels=labels))
    accuracy = measure("classification", {"log_probs": log_probs}, target, names=["accuracy"])["accuracy"]
    assert top_k_accuracy(log_probs, target, 1) == pytest.approx(accuracy)


def test_of_equal_classes_the_first_count() -> None:
    even = torch.full((4, 4), 0.25).log()
    assert [top_k_accuracy(even, torch.arange(4), k) for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1]
    with pytest.raises(EnsembleError, match="k is 0"):
        top_k_accuracy(even, torch.arange(4), 0)


@law
@given(seeds, rows)
def test_slices_are_their_rows_and_average_to_the_whole(seed, num_rows) -> None:
    log_probs, target = classifier(seed, num_rows, 3)
    labels = np.random.default_rng(seed).choice(["old", "new", "odd"], num_rows)
    parts = by_slice("classification", {"log_probs": log_probs}, target, labels)
    assert sum(part.rows for part in parts) == num_rows
    for part in parts:
        mask = torch.tensor(labels == part.label)
        assert part.metrics == measure("classification", {"log_probs": log_probs[mask]}, target[mask])
    whole = measure("classification", {"log_probs": log_probs}, target)
    for name in ("accuracy", "nll", "brier"):
        assert METRICS[name].per_row
        mean = sum(part.rows * part.metrics[name] for part in parts) / num_rows
        assert mean == pytest.approx(whole[name])


@law
@given(seeds, rows)
def test_classes_are_slices_in_order_and_their_accuracy_is_the_recall(seed, num_rows) -> None:
    log_probs, target = classifier(seed, num_rows, 12)
    parts = by_class({"log_probs": log_probs}, target, names=["accuracy"])
    assert [int(part.label) for part in parts] == target.unique().tolist()
    for part in parts:
        of_class = target == int(part.label)
        recall = (log_probs.argmax(-1)[of_class] == target[of_class]).double().mean()
        assert part.metrics == {"accuracy": pytest.approx(recall.item())}
    with pytest.raises(EnsembleError, match="labels for"):
        by_slice("classification", {"log_probs": log_probs}, target, ["a"] * (num_rows + 1))


@pytest.mark.parametrize("doubt", DOUBTS.values(), ids=DOUBTS)
def test_a_doubt_is_larger_where_members_are_unsure_or_disagree(doubt) -> None:
    """Rows: all sure of one class; each sure of another; all unsure."""
    sure, other, unsure = [0.98, 0.01, 0.01], [0.01, 0.98, 0.01], [1 / 3] * 3
    log_probs = torch.tensor([[sure, sure, unsure], [sure, other, unsure]], dtype=torch.float64).log()
    row_N = doubt(log_probs, None)
    assert row_N.shape == (3,)
    assert row_N[0] == row_N.min()
    assert row_N[1] > row_N[0] or doubt is DOUBTS["expected_entropy"]
    assert row_N[2] > row_N[0] or doubt is DOUBTS["mutual_information"]


def test_the_energy_needs_logits() -> None:
    logits = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    expected = [-np.mean([math.log(np.exp(m).sum()) for m in logits[:, n].numpy()]) for n in range(5)]
    assert energy(logits).tolist() == pytest.approx(expected)
    for shift in (1.0, -2.5):
        torch.testing.assert_close(energy(logits + shift), energy(logits) - shift)
    with pytest.raises(EnsembleError, match="outputs before the softmax"):
        energy(logits.log_softmax(-1))
    with pytest.raises(EnsembleError, match="must be finite"):
        energy(logits * torch.nan)
