"""Laws of what is made ahead: the same items in the same order, one ahead, and the fault in its place."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble_svc.ahead import ahead


@given(st.lists(st.integers()))
def test_the_items_come_in_their_order(items) -> None:
    assert list(ahead(iter(items))) == items


def test_the_next_is_made_while_one_is_worked_on() -> None:
    made, others = [threading.Event() for _ in range(3)], []

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            others.append(threading.get_ident())
            event.set()
            yield number

    for number in ahead(items()):
        assert all(event.wait(30) for event in made[: number + 2])
        assert not any(event.is_set() for event in made[number + 2 :])
    assert threading.get_ident() not in others


def test_a_fault_comes_after_what_was_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("the third")

    found = ahead(items())
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(found)


def test_who_stops_listening_leaves_no_thread() -> None:
    found = ahead(iter(range(100)))
    assert next(found) == 0
    found.close()
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())
