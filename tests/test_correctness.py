"""Every quantity equals an independent implementation of it, and the page says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.correctness.comparisons import COMPARISONS, Comparison

PAGE = Path(__file__).parents[1] / "docs" / "correctness.md"


@pytest.mark.parametrize("one", COMPARISONS, ids=lambda one: one.quantity)
def test_it_is_what_others_compute(one: Comparison) -> None:
    found = list(one.differences(torch.Generator().manual_seed(1)))
    assert found
    assert max(found) <= one.within


def test_the_page_has_every_quantity() -> None:
    page = PAGE.read_text()
    assert [one.quantity for one in COMPARISONS if f"| {one.quantity} | {one.other} |" not in page] == []
    assert "accuracy 0.9691 and NLL 0.1003" in page
