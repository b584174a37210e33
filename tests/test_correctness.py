"""Every quantity equals an independent implementation of it, and the page says so."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.children import PEERS
from benchmarks.correctness import __main__ as page
from benchmarks.correctness.comparison import Comparison, all_within
from benchmarks.correctness.comparisons import COMPARISONS
from benchmarks.correctness.peers import PEER_COMPARISONS, PeerComparison, asked

PAGE = Path(__file__).parents[1] / "docs" / "correctness.md"


@pytest.mark.parametrize("one", COMPARISONS, ids=lambda one: one.quantity)
def test_it_is_what_others_compute(one: Comparison) -> None:
    found = list(one.differences(torch.Generator().manual_seed(1)))
    assert all_within(found, one.within)


@pytest.mark.skipif(not PEERS.is_file(), reason="make bench-peers installs what it is compared with")
@pytest.mark.parametrize("one", PEER_COMPARISONS, ids=lambda one: f"{one.quantity}, {one.other}")
def test_it_is_what_libraries_elsewhere_compute(one: PeerComparison) -> None:
    given, answers = asked(1)
    if "missing" in answers[one.question]:
        pytest.skip(f"{answers[one.question]['package']}: {answers[one.question]['missing']}")
    found = one.differences(given, answers)
    assert all_within(found, one.within)


@given(st.lists(st.floats(0, 1), max_size=5), st.integers(0, 5))
def test_no_nan_is_equal(found: list[float], place: int) -> None:
    """Python's ``max`` keeps what stands before a NaN."""
    assert all_within(found, 1.0) is bool(found)
    assert not all_within([*found[:place], math.nan, *found[place:]], 1.0)
    assert not all_within([*found, 1.5], 1.0)


def test_the_page_is_not_written_with_a_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(COMPARISONS[0], differences=lambda _: iter([0.0, math.nan]))
    monkeypatch.setattr(page, "COMPARISONS", [wrong])
    with pytest.raises(SystemExit, match="differs by"):
        list(page._rows())


def test_the_page_has_every_quantity() -> None:
    text = PAGE.read_text()
    assert [one.quantity for one in COMPARISONS if f"| {one.quantity} | {one.other} |" not in text] == []
    assert [one.quantity for one in PEER_COMPARISONS if f"| {one.quantity} | {one.other} " not in text] == []
    assert "accuracy 0.9691 and NLL 0.1003" in text
