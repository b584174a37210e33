"""Laws: looking for unreachable objects is made rarer, never stopped, and never more frequent than it was."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble_svc.collector import ALLOCATIONS, collect_seldom


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@given(first=st.integers(1, 10**6), second=st.integers(1, 50), third=st.integers(1, 50))
def test_rarer_and_never_more_frequent(first: int, second: int, third: int) -> None:
    gc.set_threshold(first, second, third)
    collect_seldom()
    assert gc.get_threshold() == (max(first, ALLOCATIONS), second, third)
    collect_seldom()
    assert gc.get_threshold() == (max(first, ALLOCATIONS), second, third)


class _Knot:
    """Refers to itself, so counting references does not free it."""

    def __init__(self) -> None:
        self.own = self


def test_what_is_unreachable_is_still_found() -> None:
    collect_seldom()
    gone = weakref.ref(_Knot())
    kept = [[number] for number in range(2 * ALLOCATIONS)]
    assert gone() is None
    assert len(kept) == 2 * ALLOCATIONS


def test_command_line_collects_seldom_and_leaves_the_rest_at_its_end() -> None:
    script = (
        "import atexit, gc, sys\n"
        "from ensemble_svc.cli.main import run\n"
        "atexit.register(lambda: print(gc.isenabled(), gc.get_threshold()[0], gc.get_freeze_count() > 1000))\n"
        "sys.argv = ['ensemble-svc', '--help']\n"
        "run()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"True {ALLOCATIONS} True"
