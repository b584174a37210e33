"""Ray Tune with Lightning inside, one trial per member: what people do."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray import tune

from benchmarks.contenders.module import fit_with_trainer, quiet
from benchmarks.data import Rows
from benchmarks.members import CORES, Trained, predict
from benchmarks.work import Work


def train(work: Work, data: Rows, *, reuse_actors: bool = False) -> Trained:
    """Train each member as a trial of one core.

    Args:
        reuse_actors: keep a trial's process for the next trial.
    """
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        ray.init(
            "local", num_cpus=CORES, include_dashboard=False, log_to_driver=False, _temp_dir=f"{folder}/r"
        )
        try:
            began = time.perf_counter()
            _run(work, data, Path(folder), reuse_actors=reuse_actors)
            seconds = time.perf_counter() - began
        finally:
            ray.shutdown()
        probs = np.stack([np.load(Path(folder) / f"{member}.npy") for member in range(work.members)])
    return Trained(torch.from_numpy(probs), seconds, 1)


def _run(work: Work, data: Rows, folder: Path, *, reuse_actors: bool) -> None:
    trainable = tune.with_parameters(_train_member, work=work, data=data, folder=folder)
    results = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"member": tune.grid_search(list(range(work.members)))},
        tune_config=tune.TuneConfig(reuse_actors=reuse_actors),
        run_config=tune.RunConfig(name="bench", storage_path=str(folder / "tune"), verbose=0),
    ).fit()
    if results.num_errors:
        raise results.errors[0]


def _train_member(config: dict[str, Any], work: Work, data: Rows, folder: Path) -> None:
    quiet()
    net = fit_with_trainer(work, data, config["member"])
    np.save(folder / f"{config['member']}.npy", predict(net, data.x_test).numpy())
    tune.report({"done": 1})
