"""Every quantity equals an independent implementation of it, and the page says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.children import PEERS
from benchmarks.correctness.comparison import Comparison
from benchmarks.correctness.comparisons import COMPARISONS
from benchmarks.correctness.peers import PEER_COMPARISONS, PeerComparison, asked

PAGE = Path(__file__).parents[1] / "docs" / "correctness.md"


@pytest.mark.parametrize("one", COMPARISONS, ids=lambda one: one.quantity)
def test_it_is_what_others_compute(one: Comparison) -> None:
    found = list(one.differences(torch.Generator().manual_seed(1)))
    assert found
    assert max(found) <= one.within


@pytest.mark.skipif(not PEERS.is_file(), reason="make bench-peers installs what it is compared with")
@pytest.mark.parametrize("one", PEER_COMPARISONS, ids=lambda one: f"{one.quantity}, {one.other}")
def test_it_is_what_libraries_elsewhere_compute(one: PeerComparison) -> None:
    given, answers = asked(1)
    if "missing" in answers[one.question]:
        pytest.skip(f"{answers[one.question]['package']}: {answers[one.question]['missing']}")
    found = one.differences(given, answers)
    assert found
    assert max(found) <= one.within


def test_the_page_has_every_quantity() -> None:
    page = PAGE.read_text()
    assert [one.quantity for one in COMPARISONS if f"| {one.quantity} | {one.other} |" not in page] == []
    assert [one.quantity for one in PEER_COMPARISONS if f"| {one.quantity} | {one.other} " not in page] == []
    assert "accuracy 0.9691 and NLL 0.1003" in page
