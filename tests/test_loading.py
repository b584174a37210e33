"""What a process loads: a driver whose slots run elsewhere no Lightning, a worker what training needs at once."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble_svc.cluster.executor import MOST_PRELOADED, preloaded_on
from ensemble_svc.collector import ALLOCATIONS
from ensemble_svc.local import Resources

ACTOR = """
import gc, os, sys
import ray
from ensemble_svc.cluster.session import connect

class Asked:
    def found(self):
        return os.getpid(), "ensemble_svc.train.fit" in sys.modules, gc.get_threshold()[0]

with connect(num_cpus=1, preload="ensemble_svc.cluster.preloaded"):
    pid, loaded, threshold = ray.get(ray.remote(Asked).remote().found.remote())
    print(pid != os.getpid(), loaded, threshold)
"""


def _last_line(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_a_driver_loads_neither_lightning_nor_what_compiles_nor_what_only_searches_need() -> None:
    heavy = (
        "torch",
        "lightning",
        "torchmetrics",
        "torch._dynamo",
        "sympy",
        "scipy",
        "sklearn",
        "optuna",
        "pandas",
    )
    script = (
        "import sys\n"
        "import ensemble_svc.pipeline, ensemble_svc.cli.live\n"
        f"print(*(name for name in {heavy!r} if name in sys.modules))"
    )
    assert _last_line(script) == "torch"


@given(cpus=st.integers(1, 256), gpus=st.integers(0, 8))
def test_workers_load_early_on_few_cores_without_gpus(cpus: int, gpus: int) -> None:
    assert bool(preloaded_on(Resources(cpus, float(gpus)))) == (cpus <= MOST_PRELOADED and not gpus)


@pytest.mark.ray
def test_an_actor_of_an_embedded_ray_finds_loaded_what_training_needs() -> None:
    assert _last_line(ACTOR) == f"True True {ALLOCATIONS}"
