"""Every job file of ``jobs/`` runs: on the shipped data, or on a small stand-in of the file it names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ensemble_svc import pipeline
from ensemble_svc.local import LocalExecutor
from ensemble_svc.spec.load import load_job

JOBS = sorted((Path(__file__).parents[1] / "jobs").rglob("*.yaml"))
SMALL = ("training.epochs=1", "ensemble.members=2", "compute.executor=local", "evaluate.resamples=100")


MORE = {"snapshots": ("training.epochs=5",)}
"""Of jobs that one epoch is too short for."""


def small(path: Path) -> tuple[str, ...]:
    """What makes the job one of two members and one epoch, after which no trial can be stopped."""
    searches = load_job(path).search is not None
    own = ("search.trials=2", "search.scheduler=none") if searches else ()
    return (*SMALL, *own, *MORE.get(path.stem, ()))


def write_images(path: Path, *shape: int) -> None:
    """60 training and 20 test images of ten classes, named as the published files are."""
    draw = np.random.default_rng(0)
    arrays = {}
    for split, rows in (("train", 60), ("test", 20)):
        arrays[f"X_{split}"] = draw.integers(0, 256, (rows, *shape), dtype=np.uint8)
        arrays[f"y_{split}"] = (np.arange(rows) % 10).astype(np.uint8)
    np.savez(path, **arrays)


def write_table(path: Path, target: str) -> None:
    """40 rows; the target is a noisy sum of three columns."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(40, 3))
    y = x.sum(1, keepdims=True) + 0.1 * draw.normal(size=(40, 1))
    np.savetxt(path, np.hstack([x, y]), delimiter=",", header=f"a,b,c,{target}", comments="")


def write_splits(path: Path) -> None:
    order = np.random.default_rng(0).permuted(np.tile(np.arange(40), (20, 1)), axis=1)
    np.savez(path, train_idx=order[:, :32], test_idx=order[:, 32:])


STAND_INS: dict[str, Callable[[Path], None]] = {
    "fashion_mnist.npz": lambda path: write_images(path, 28, 28),
    "fashion_mnist_6000.npz": lambda path: write_images(path, 28, 28),
    "cifar10.npz": lambda path: write_images(path, 32, 32, 3),
    "california_housing.csv": lambda path: write_table(path, "MedHouseVal"),
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    (folder / "uci").mkdir(parents=True)
    for name, write in STAND_INS.items():
        write(folder / name)
    for path in JOBS:
        if path.parent.name == "uci":
            write_table(folder / "uci" / f"{path.stem}.csv", "y")
            write_splits(folder / "uci" / f"{path.stem}_splits.npz")
    monkeypatch.setenv("ENSEMBLE_DATA", str(folder))
    return folder


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_each_job_runs_to_a_measured_ensemble(path: Path, tmp_path: Path, data: Path) -> None:
    job = load_job(path, small(path))
    run = pipeline.train(job, out=tmp_path / "run", directory=tmp_path, executor=LocalExecutor(retries=0))
    test = run.metrics()["test"]
    states = [member["status"] for member in run.manifest()["members"]]
    assert set(states) == {"done"}
    seeds = job.search.refit.seeds if job.search and job.search.refit else 0
    assert len(states) in {2 + chosen * seeds for chosen in ((1, 2) if seeds else (0,))}
    assert np.isfinite(test["ensemble"]["nll"])
    assert test["ensemble"]["nll"] <= test["members"]["mean"]["nll"] + 1e-5
