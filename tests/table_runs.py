"""A small run on a table of animals, and tables of more of them to be asked about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ensemble_svc import pipeline
from ensemble_svc.local import LocalExecutor
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.run import Run

SPECIES = ("asp", "bee", "cow")


def frame(num_rows: int, seed: int = 0) -> pd.DataFrame:
    """A table with numbers, words, an id, a column that is no feature, and a class that they tell of."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, num_rows)
    return pd.DataFrame(
        {
            "id": [f"{i:06d}" for i in range(num_rows)],
            "length": kind + rng.normal(0, 0.6, num_rows),
            "weight": rng.normal(0, 1, num_rows).round(3),
            "colour": rng.choice(["red", "blue", "grey"], num_rows),
            "region": rng.choice(["north", "south"], num_rows),
            "kind": np.array(SPECIES)[kind],
        }
    )


def train(folder: Path, **changes: Any) -> Run:
    data: dict[str, Any] = {
        "name": "run",
        "data": {
            "source": {"name": "csv", "path": str(folder / "train.csv"), "target": "kind",
                       "drop": ("region",), "id": "id"},
            "preprocess": ("standardize",),
            "test": 0.3,
        },
        "model": {"name": "mlp", "hidden": (8,)},
        "training": {"epochs": 2, "batch_size": 64},
        "ensemble": {"members": 3},
        "evaluate": {"resamples": 200},
        "compute": {"executor": "local"},
    }  # fmt: skip
    for section, value in changes.items():
        data[section] = {**data[section], **value} if isinstance(data.get(section), dict) else value
    job = JobSpec.model_validate(data)
    return pipeline.train(job, out=folder / "run", directory=folder, executor=LocalExecutor())


def source(path: Path) -> str:
    name = "parquet" if path.suffix == ".parquet" else "csv"
    return json.dumps({"name": name, "path": str(path), "target": "kind", "drop": ["region"], "id": "id"})


def read(path: Path) -> dict[str, Any]:
    if path.suffix == ".npz":
        return dict(np.load(path))
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype={"row": str})
    return {name: table[name].to_numpy() for name in table}


def same(first: Any, second: Any, rel: float = 1e-9) -> bool:
    """Whether two nests of lists, mappings and numbers are the same to round-off; what is no fraction to the bit."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k], rel) for k in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second, [rel] * len(first)))
    return bool(first == pytest.approx(second, rel=rel) if isinstance(first, float) else first == second)
