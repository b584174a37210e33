"""Metrics against torchmetrics, scikit-learn and scipy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.stats import norm
from sklearn.metrics import brier_score_loss, log_loss
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error
from torchmetrics.functional.regression import mean_absolute_error, mean_squared_error

from benchmarks.correctness.comparison import Cases, Comparison, classes, numbers
from ensemble_svc.evaluate.metrics import measure
from ensemble_svc.evaluate.topk import top_k_accuracy


def of_metric(name: str, theirs: Callable[[Tensor, Tensor], float]) -> Callable[[torch.Generator], Cases]:
    def differences(draw: torch.Generator) -> Cases:
        for _ in range(20):
            log_probs, target = classes(draw)
            ours = measure("classification", {"log_probs": log_probs}, target, names=(name,))[name]
            yield abs(ours - theirs(log_probs, target))

    return differences


def accuracy(log_probs: Tensor, target: Tensor) -> float:
    return float(multiclass_accuracy(log_probs.exp(), target, log_probs.shape[1], average="micro"))


def nll(log_probs: Tensor, target: Tensor) -> float:
    return float(log_loss(target.numpy(), log_probs.exp().numpy(), labels=range(log_probs.shape[1])))


def brier(log_probs: Tensor, target: Tensor) -> float:
    probs = log_probs.exp().numpy()
    each = [brier_score_loss(target.numpy() == c, probs[:, c]) for c in range(probs.shape[1])]
    return float(sum(each))


def ece(log_probs: Tensor, target: Tensor) -> float:
    found = multiclass_calibration_error(
        log_probs.exp().float(), target, log_probs.shape[1], n_bins=15, norm="l1"
    )
    return float(found)


def top3(draw: torch.Generator) -> Cases:
    for _ in range(20):
        log_probs, target = classes(draw)
        theirs = multiclass_accuracy(log_probs.exp(), target, log_probs.shape[1], average="micro", top_k=3)
        yield abs(top_k_accuracy(log_probs, target, 3) - float(theirs))


def errors(draw: torch.Generator) -> Cases:
    for _ in range(20):
        mean, log_variance, target = numbers(draw)
        one = {"mean": mean[0], "log_variance": log_variance[0]}
        ours = measure("regression", one, target, names=("rmse", "mae", "nll"))
        yield abs(ours["rmse"] - float(mean_squared_error(mean[0], target, squared=False)))
        yield abs(ours["mae"] - float(mean_absolute_error(mean[0], target)))
        density = norm.logpdf(target, mean[0], (0.5 * log_variance[0]).exp())
        yield abs(ours["nll"] + density.mean())


COMPARISONS: tuple[Comparison, ...] = (
    Comparison("accuracy", "torchmetrics", of_metric("accuracy", accuracy), 1e-7),
    Comparison("top-3 accuracy", "torchmetrics", top3, 1e-7),
    Comparison("NLL", "scikit-learn `log_loss`", of_metric("nll", nll), 1e-12),
    Comparison(
        "Brier score",
        "scikit-learn `brier_score_loss`, summed over classes",
        of_metric("brier", brier),
        1e-12,
    ),
    Comparison("ECE, 15 bins", "torchmetrics (sums in float32)", of_metric("ece", ece), 1e-5),
    Comparison("RMSE, MAE, Gaussian NLL", "torchmetrics, scipy `norm.logpdf`", errors, 1e-12),
)
