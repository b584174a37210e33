"""The curve of a greedy ensemble's picks begins at its first pick and ends at the ensemble."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from report_views import make_view

from ensemble_svc.aggregate.decision import Decision, equal
from ensemble_svc.report.figures import picks as figure
from ensemble_svc.report.view import RunView
from ensemble_svc.scoring import pick_curve, scored

orders = st.lists(st.integers(0, 4), min_size=2, max_size=60)


def picked(order: list[int]) -> Decision:
    counts = Counter(order)
    kept = sorted(counts)
    return Decision(
        members=tuple(f"m{k}" for k in kept),
        weights=tuple(counts[k] / len(order) for k in kept),
        picks=tuple(f"m{k}" for k in order),
        rows="validation",
    )


@given(order=orders, seed=st.integers(0, 9))
def test_it_goes_from_the_first_pick_to_the_ensemble(order: list[int], seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    decision, target = picked(order), torch.randint(3, (40,), generator=g)
    log_probs_KNC = torch.randn(5, 40, 3, generator=g).log_softmax(2)
    kept = sorted(set(order))
    curve = pick_curve("classification", decision, {"log_probs": log_probs_KNC[kept]}, target, "auto", 15)
    sizes = [point["picks"] for point in curve]
    assert sizes[0] == 1
    assert sizes[-1] == len(order)
    assert sizes == sorted(set(sizes))
    assert all(point["members"] == len(set(order[: int(point["picks"])])) for point in curve)
    rows = torch.arange(40)
    assert curve[0]["nll"] == pytest.approx(-log_probs_KNC[order[0], rows, target].mean().item(), rel=1e-5)
    whole = scored(decision, {"log_probs": log_probs_KNC[kept]}, target)["log_probs"]
    assert curve[-1]["nll"] == pytest.approx(-whole[rows, target].mean().item(), rel=1e-5)


def test_weights_that_are_no_counts_have_none() -> None:
    log_probs_KNC, target = torch.randn(2, 9, 3).log_softmax(2), torch.randint(3, (9,))
    for decision in (equal(["a", "b"]), picked([0, 0, 1]).model_copy(update={"weights": (0.5, 0.5)})):
        assert pick_curve("classification", decision, {"log_probs": log_probs_KNC}, target, "auto", 15) == []


def test_it_is_drawn_where_there_is_one() -> None:
    view = make_view(members=3)
    points = [
        {"picks": n, "members": min(n, 3), "nll": 1 / n, "accuracy": 1 - 0.1 / n} for n in (1, 2, 3, 4, 30)
    ]
    metrics = {split: {**own, "pick_curve": points} for split, own in view.metrics.items()}
    found = figure.draw(RunView(**{**vars(view), "metrics": metrics}))
    assert [one.title for one in found] == ["Accuracy against picks", "NLL against picks"]
    assert all(one.drawing.count('class="ensemble-dot"') >= len(points) for one in found)
    assert "30 picks of 3 members" in found[0].caption
    assert figure.draw(view) == []
