"""What every test shares: how Hypothesis searches, and how many threads torch has."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a suite in the background ignores it, and its processes too
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Every test starts with one thread, whatever the test before it asked for."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
