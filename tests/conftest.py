"""What every test shares: how Hypothesis searches, how many threads torch has, where Ray's tests run."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that start Ray in one worker: two heads on one host take each other's ports."""
    for item in items:
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.xdist_group("ray"))


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Every test starts with one thread, whatever the test before it asked for."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
