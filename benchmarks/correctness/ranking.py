"""What ranks the rows: detection of foreign ones, and selective prediction."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.correctness.comparison import Cases, Comparison
from ensemble_svc.evaluate.detection import detect
from ensemble_svc.evaluate.selective import aurc


def detection(draw: torch.Generator) -> Cases:
    for _ in range(20):
        inside, outside = (torch.randn(300, generator=draw).round(decimals=1) + shift for shift in (0.0, 0.7))
        label = np.r_[np.zeros(300), np.ones(300)]
        doubt = torch.cat([inside, outside]).double()
        found = detect(doubt[:300], doubt[300:])
        yield abs(found.auroc - roc_auc_score(label, doubt.numpy()))
        yield abs(found.aupr_out - average_precision_score(label, doubt.numpy()))
        yield abs(found.aupr_in - average_precision_score(1 - label, -doubt.numpy()))


def risk(draw: torch.Generator) -> Cases:
    """The mean error of the k surest rows, over all k, by a loop."""
    for _ in range(10):
        loss = torch.randint(2, (200,), generator=draw).double()
        doubt = torch.rand(200, generator=draw, dtype=torch.float64)
        order = doubt.argsort()
        yield abs(aurc(loss, doubt) - float(np.mean([loss[order[: k + 1]].mean() for k in range(200)])))


COMPARISONS: tuple[Comparison, ...] = (
    Comparison("AUROC, AUPR (out, in) of OOD detection", "scikit-learn", detection, 1e-12),
    Comparison("AURC", "a loop over coverages", risk, 1e-12),
)
