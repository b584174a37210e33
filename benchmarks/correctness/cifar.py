"""Eight published CIFAR-10 networks: mixed as they are, and decided on one half of the rows, reported on the other.

Shapes: K members, N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.aggregate.choosing import decide
from ensemble_svc.aggregate.decision import HeldOut, apply
from ensemble_svc.evaluate.metrics import measure
from ensemble_svc.spec.aggregate import AggregateSpec

FILE = "cifar10_test_logits.npz"
WAYS: Mapping[str, dict[str, Any]] = {
    "mean of all": {},
    "geometric mean": {"combine": "geometric"},
    "votes": {"combine": "vote"},
    "stacking": {"combine": "stacking"},
    "top 3": {"select": {"name": "top_k", "k": 3}},
    "greedy": {"select": "greedy"},
    "temperature after pooling": {"calibrate": "temperature"},
    "temperature before pooling": {"calibrate": {"name": "temperature", "when": "before"}},
    "vector scaling": {"calibrate": "vector"},
    "isotonic": {"calibrate": "isotonic"},
    "greedy, temperature": {"select": "greedy", "calibrate": "temperature"},
}


def load(folder: Path) -> tuple[Tensor, Tensor]:
    """Log probabilities [K, N, C] and classes [N]."""
    held = np.load(folder / FILE)
    logits = torch.from_numpy(held["logits"]).double()
    return logits.log_softmax(-1), torch.from_numpy(held["y_test"].astype(np.int64))


def whole(log_probs: Tensor, target: Tensor) -> dict[str, float]:
    """All eight, nothing decided, on all rows."""
    ids = [str(k) for k in range(len(log_probs))]
    decision = decide(AggregateSpec(), ids, None, seed=0)
    return measure("classification", apply(decision, {"log_probs": log_probs}), target)


def halves(log_probs: Tensor, target: Tensor) -> Iterator[tuple[str, list[dict[str, float]]]]:
    """By way: the metrics on the second half, decided on the first, and the other way round."""
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(0))
    parts = order.tensor_split(2)
    ids = [str(k) for k in range(len(log_probs))]
    for way, options in WAYS.items():
        spec, found = AggregateSpec.model_validate(options), []
        for held, told in (parts, parts[::-1]):
            rows = HeldOut("validation", {"log_probs": log_probs[:, held]}, target[held])
            decision = decide(spec, ids, rows, seed=0)
            chosen = torch.tensor([int(member) for member in decision.members])
            said = apply(decision, {"log_probs": log_probs[chosen][:, told]})
            found.append(measure("classification", said, target[told]))
        yield way, found
