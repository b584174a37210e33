"""What every test shares: how Hypothesis searches, and how many threads torch has."""

from __future__ import annotations

import os
import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from kept_ray import KeptRay

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a suite in the background ignores it, and its processes too
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("GOMP_SPINCOUNT", "0")
"""Read when torch is loaded, here and in every process that a test starts: threads of a parallel region that wait for
one another on cores that other processes use too would spend most of the suite's time in turning round."""

pytest.register_assert_rewrite("law_runs", "search_runs", "table_runs", "whole_runs")

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session")
def kept_ray() -> Iterator[KeptRay]:
    """As its file says; loaded only where a test wants Ray."""
    from kept_ray import KeptRay

    ray = KeptRay()
    yield ray
    ray.end()


@pytest.fixture(autouse=True)
def own_start(request: pytest.FixtureRequest) -> None:
    """Every test starts with one thread and with draws of its own, whatever ran before it in the same process.

    Under CI the draws are the same each time; elsewhere they differ, and a test that fails says its seed.
    """
    seed = zlib.crc32(request.node.nodeid.encode())
    if not os.environ.get("CI"):
        seed ^= int.from_bytes(os.urandom(4), "little")
    print(f"torch.manual_seed({seed})")
    if "torch" in sys.modules:
        import torch  # waits where a thread of the test before is still at it

        torch.set_num_threads(1)
        torch.manual_seed(seed)


@dataclass(frozen=True)
class Outcome:
    """Exit status and output of one command."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs one command in this process."""

    from ensemble_svc.cli.main import run

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ensemble-svc", *map(str, arguments)])
        try:
            run()
        except SystemExit as left:
            code = int(left.code or 0)
        else:
            code = 0
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return call
