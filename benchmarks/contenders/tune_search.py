"""A search as its user writes it on Ray Tune, Lightning and ASHA: one trial for each configuration.

    python -m benchmarks.contenders.tune_search FOLDER OUT [--reuse-actors]

FOLDER holds the rows (``rows.npz``) and what is searched (``search.json``), see :mod:`benchmarks.search`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from benchmarks.contenders.module import quiet
from benchmarks.members import CORES


class Net(L.LightningModule):
    """Two hidden layers of 128 with batch norm, dropout, and noise on the inputs while it trains."""

    def __init__(self, trial: dict[str, float], num_inputs: int, num_steps: int) -> None:
        super().__init__()
        self.trial, self.num_steps, layers = trial, num_steps, list[nn.Module]()
        for inputs in (num_inputs, 128):
            layers += [nn.Linear(inputs, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU()]
            layers += [nn.Dropout(trial["dropout"])]
        self.net = nn.Sequential(*layers, nn.Linear(128, 10))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x_B, y_B = batch
        return cross_entropy(self.net(x_B + self.trial["noise"] * torch.randn_like(x_B)), y_B)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x_B, y_B = batch
        self.rows_nll = cross_entropy(self.net(x_B), y_B, reduction="none")

    def configure_optimizers(self) -> Any:
        rule = torch.optim.AdamW(
            self.parameters(), lr=self.trial["lr"], weight_decay=self.trial["weight_decay"], fused=True
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(rule, self.num_steps)
        return {"optimizer": rule, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Report(L.Callback):
    """Tells Tune each epoch, and leaves the rows' NLL."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Net)
        np.save(self.out, pl_module.rows_nll.numpy())
        tune.report({"epoch": trainer.current_epoch + 1, "val_nll": pl_module.rows_nll.mean().item()})


def train(config: dict[str, Any], rows: dict[str, np.ndarray], search: dict[str, Any], out: Path) -> None:
    """One trial."""
    quiet()
    number = config["trial"]
    L.seed_everything(number, verbose=False)
    parts = {name: torch.from_numpy(part) for name, part in rows.items()}
    training = TensorDataset(parts["x"], parts["y"])
    batches = BatchSampler(RandomSampler(training), search["batch"], False)
    steps = search["epochs"] * len(batches)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=search["epochs"],
        callbacks=[Report(out / f"{number}.npy")],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    validation = TensorDataset(parts["x_val"], parts["y_val"])
    trainer.fit(
        Net(search["trials"][number], parts["x"].shape[1], steps),
        DataLoader(training, sampler=batches, batch_size=None),
        DataLoader(validation, batch_size=len(validation)),
    )


def main(folder: Path, out: Path, *, reuse_actors: bool) -> None:
    """Search, and write the best trial's NLL of each validation row, and every trial's epochs."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    search = json.loads((folder / "search.json").read_text())
    with np.load(folder / "rows.npz") as file:
        rows = dict(file)
    ray.init("local", num_cpus=CORES, include_dashboard=False, log_to_driver=False)
    trainable = tune.with_parameters(train, rows=rows, search=search, out=folder)
    asha = ASHAScheduler(
        "epoch",
        max_t=search["epochs"],
        grace_period=search["min_epochs"],
        reduction_factor=search["factor"],
    )
    results = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"trial": tune.grid_search(list(range(len(search["trials"]))))},
        tune_config=tune.TuneConfig(metric="val_nll", mode="min", scheduler=asha, reuse_actors=reuse_actors),
        run_config=tune.RunConfig(name="search", storage_path=str(folder / "tune"), verbose=0),
    ).fit()
    if results.num_errors:
        raise results.errors[0]
    best = results.get_best_result().config["trial"]
    found = {"rows_nll": np.load(folder / f"{best}.npy").tolist()}
    out.write_text(json.dumps(found | {"epochs": sum(r.metrics["epoch"] for r in results)}))
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), reuse_actors="--reuse-actors" in sys.argv)
