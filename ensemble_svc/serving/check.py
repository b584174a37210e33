"""Whether a file says what the ensemble says: both are asked about the same rows.

Shapes: N rows.
"""

from __future__ import annotations

import numpy as np
import torch

from ensemble_svc.aggregate.calibration.temperature import Temperature
from ensemble_svc.aggregate.uncertainty import expected_entropy
from ensemble_svc.data.dataset import Array, InputSchema
from ensemble_svc.nn.tasks import part_of
from ensemble_svc.predictor import Ensemble, Prediction
from ensemble_svc.serving.traced import Predict

TOLERANCE = 1e-4
"""Largest difference allowed, as ``differences`` measures it."""
RANDOM_ROWS = 256


def differences(ensemble: Ensemble, predict: Predict, x: Array) -> dict[str, float]:
    """The largest difference of each output.

    Of probabilities and entropies as it is; of numbers as a share of the largest magnitude of that target's
    means, and of its total variances.
    """
    wanted, found = expected(ensemble, x), predict(x)
    return {name: _largest(name, value, found[name], wanted) for name, value in wanted.items()}


def expected(ensemble: Ensemble, x: Array) -> dict[str, Array]:
    """What the graph's outputs should be, by ``Ensemble``."""
    found = ensemble.predict(x)
    if not found.tasks:
        return _named(found, _aleatoric(ensemble, x, None))
    each = {task: _named(one, _aleatoric(ensemble, x, task)) for task, one in found.tasks.items()}
    return {f"{task}/{name}": value for task, one in each.items() for name, value in one.items()}


def random_rows(schema: InputSchema, like: Array | None, num_rows: int = RANDOM_ROWS) -> Array:
    """Rows that nobody has seen: each value drawn by itself.

    Args:
        like: rows whose columns are drawn from, each column apart; without them tables are drawn from a
            standard normal and images from all their values.
    """
    draw = np.random.default_rng(0)
    if schema.kind == "image":
        shape = (num_rows, *schema.shape)
        if schema.dtype == "uint8":
            return draw.integers(0, 256, shape).astype(np.uint8)
        return draw.random(shape).astype(np.float32)
    if like is not None and len(like):
        columns = [column[draw.integers(0, len(like), num_rows)] for column in like.T]
    else:
        columns = [draw.normal(size=num_rows) for _ in range(schema.num_numeric)]
        columns += [draw.integers(-1, len(values), num_rows) for _, values in schema.categories]
    for j in schema.indicators:
        columns[j] = np.where(draw.random(num_rows) < 0.2, np.nan, columns[j])
    return np.column_stack(columns).astype(np.float32)


def _named(found: Prediction, aleatoric: Array | None) -> dict[str, Array]:
    if aleatoric is None:
        return {"mean": found.mean, **found.uncertainty}
    total, epistemic = found.uncertainty["entropy"], found.uncertainty["mutual_information"]
    return {"probabilities": found.mean, "total": total, "aleatoric": aleatoric, "epistemic": epistemic}


def _aleatoric(ensemble: Ensemble, x: Array, task: str | None) -> Array | None:
    """The members' mean entropy [N]; None where they give numbers."""
    members = ensemble.members(x)
    own = members if task is None else part_of(members, task)
    if "log_probs" not in own:
        return None
    decision = ensemble.decision.of(task or "")
    log_probs_MNC, calibrator = own["log_probs"], decision.calibrator
    if isinstance(calibrator, Temperature) and calibrator.before:
        log_probs_MNC = calibrator.apply(log_probs_MNC)
    weights_M = torch.tensor(decision.weights, dtype=torch.float64)
    return expected_entropy(log_probs_MNC, weights_M).numpy()


def _largest(name: str, wanted: Array, found: Array, all_wanted: dict[str, Array]) -> float:
    """NaN where a value is NaN or a shape is another."""
    if wanted.shape != found.shape:
        return float("nan")
    apart = np.abs(wanted.astype(np.float64) - found.astype(np.float64))
    if wanted.ndim == 2 and not name.endswith("probabilities"):
        head, _, key = name.rpartition("/")
        unit = all_wanted[f"{head}/{key}" if head else key] if key == "mean" else _total(head, all_wanted)
        apart = apart / np.maximum(np.abs(unit.astype(np.float64)).max(axis=0), 1e-30)
    return float(apart.max(initial=0.0))


def _total(head: str, wanted: dict[str, Array]) -> Array:
    return wanted[f"{head}/total" if head else "total"]
