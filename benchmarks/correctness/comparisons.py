"""Each quantity, ours and theirs, on random problems; the largest difference counts.

Shapes: K members, N rows, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error
from torchmetrics.functional.regression import mean_absolute_error, mean_squared_error

from ensemble_svc.aggregate.averaging import RunningAverage
from ensemble_svc.aggregate.calibration.isotonic import fit_isotonic
from ensemble_svc.aggregate.calibration.temperature import fit_after
from ensemble_svc.aggregate.likelihood import log_likelihood
from ensemble_svc.aggregate.pools import LikelihoodPool
from ensemble_svc.aggregate.predictions import average, mix_gaussians
from ensemble_svc.aggregate.selection import greedy
from ensemble_svc.evaluate.density import crps_gaussian, crps_mixture
from ensemble_svc.evaluate.detection import detect
from ensemble_svc.evaluate.diversity import ambiguity
from ensemble_svc.evaluate.metrics import measure
from ensemble_svc.evaluate.selective import aurc
from ensemble_svc.evaluate.topk import top_k_accuracy
from ensemble_svc.optim.average import ema_update

Cases = Iterator[float]
"""Differences, one for each case."""


@dataclass(frozen=True)
class Comparison:
    """One quantity beside an implementation that shares no code with ours."""

    quantity: str
    other: str
    differences: Callable[[torch.Generator], Cases]
    within: float
    """Largest difference that counts as equal."""


def classes(draw: torch.Generator, rows: int = 500, num: int = 7) -> tuple[Tensor, Tensor]:
    target = torch.randint(num, (rows,), generator=draw)
    logits = torch.randn(rows, num, generator=draw, dtype=torch.float64) * 2
    logits += 1.5 * nn.functional.one_hot(target, num)
    return logits.log_softmax(1), target


def numbers(draw: torch.Generator, members: int = 5, rows: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    mean = torch.randn(members, rows, 1, generator=draw, dtype=torch.float64)
    log_variance = torch.randn(members, rows, 1, generator=draw, dtype=torch.float64)
    return mean, log_variance, torch.randn(rows, 1, generator=draw, dtype=torch.float64)


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


def mixtures(draw: torch.Generator) -> Cases:
    """Mean and variance of a mixture by numerical integration."""
    for _ in range(20):
        mean, log_variance, _ = numbers(draw, rows=1)
        ours_mean, ours_variance = mix_gaussians(mean, log_variance)
        centre, std = mean[:, 0, 0].numpy(), (0.5 * log_variance[:, 0, 0]).exp().numpy()
        ends = (float((centre - 12 * std).min()), float((centre + 12 * std).max()))

        def moment(power: int, ends=ends, centre=centre, std=std) -> float:
            value = quad(
                lambda t: t**power * norm.pdf(t, centre, std).mean(), *ends, limit=500, points=list(centre)
            )
            return float(value[0])

        yield abs(float(ours_mean) - moment(1))
        yield abs(float(ours_variance.exp()) - (moment(2) - moment(1) ** 2))


def crps(draw: torch.Generator) -> Cases:
    """The integral of the squared distance of the distribution functions."""
    for _ in range(10):
        mean, log_variance, target = numbers(draw, members=3, rows=1)
        centre, std, at = mean[:, 0, 0].numpy(), (0.5 * log_variance[:, 0, 0]).exp().numpy(), float(target)
        low, high = float((centre - 12 * std).min()), float((centre + 12 * std).max())

        def gap(t: float, which: slice = slice(None), centre=centre, std=std, at=at) -> float:
            return float((norm.cdf(t, centre[which], std[which]).mean() - (t >= at)) ** 2)

        ends = (min(low, at), max(high, at))
        whole = quad(gap, *ends, limit=1000, points=[at])[0]
        yield abs(float(crps_mixture(mean, log_variance, target)) - whole)
        one = quad(lambda t: gap(t, slice(0, 1)), *ends, limit=1000, points=[at])[0]
        yield abs(float(crps_gaussian(mean[0], log_variance[0], target)) - one)


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


def decomposition(draw: torch.Generator) -> Cases:
    """Ensemble error = mean member error - ambiguity (Krogh & Vedelsby 1995), each by its definition."""
    for _ in range(20):
        mean, _, target = numbers(draw)
        found = ambiguity(mean, target)
        ensemble = ((mean.mean(0) - target) ** 2).mean()
        members = ((mean - target) ** 2).mean()
        spread = ((mean - mean.mean(0)) ** 2).mean()
        yield abs(float(members - spread - ensemble))
        yield abs(found.ambiguity - float(spread))


def mixture_of_classes(draw: torch.Generator) -> Cases:
    for _ in range(20):
        log_probs = torch.stack([classes(draw)[0] for _ in range(6)])
        yield float((average(log_probs).exp() - log_probs.exp().mean(0)).abs().max())


def caruana(draw: torch.Generator) -> Cases:
    """Greedy selection against a loop that measures every candidate ensemble anew; 0 for the same picks."""
    for _ in range(20):
        target = torch.randint(4, (60,), generator=draw)
        skill = torch.rand(8, 1, 1, generator=draw, dtype=torch.float64) * 2
        logits = torch.randn(8, 60, 4, generator=draw, dtype=torch.float64) + skill * nn.functional.one_hot(
            target, 4
        )
        log_probs = logits.log_softmax(-1)
        ours = greedy(LikelihoodPool(log_likelihood({"log_probs": log_probs}, target)), 12, decimals=12)
        picks: list[int] = []
        scores: list[float] = []
        for _ in range(12):
            trials = [
                -log_probs[[*picks, k]].exp().mean(0).log().gather(1, target[:, None]).mean().item()
                for k in range(8)
            ]
            picks.append(int(np.argmin(np.round(trials, 12))))
            scores.append(min(trials))
        best = picks[: int(np.argmin(np.round(scores, 12))) + 1]  # of equal ones the smallest
        yield float(list(ours.picks) != best)


def tempering(draw: torch.Generator) -> Cases:
    """Temperature by L-BFGS on the logarithm of T, as its paper's code does."""
    for _ in range(10):
        log_probs, target = classes(draw)
        log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        rule = torch.optim.LBFGS([log_t], lr=0.5, max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

        def closure(log_t=log_t, rule=rule, log_probs=log_probs, target=target):
            rule.zero_grad()
            loss = nn.functional.cross_entropy(log_probs / log_t.exp(), target)
            loss.backward()
            return loss

        rule.step(closure)
        yield abs(fit_after(log_probs, target).value - math.exp(log_t.item()))


def isotonic(draw: torch.Generator) -> Cases:
    """Each class's rising function against scikit-learn's, on the rows of the fit, normalised."""
    for _ in range(5):
        log_probs, target = classes(draw)
        ours = fit_isotonic(log_probs, target, floor=0.0).apply(log_probs).exp()
        probs = log_probs.exp().numpy()
        each = [
            IsotonicRegression(y_min=0, y_max=1).fit_transform(probs[:, c], (target == c).double().numpy())
            for c in range(probs.shape[1])
        ]
        theirs = np.stack(each, 1)
        total = theirs.sum(1, keepdims=True)
        kept = total[:, 0] > 1e-6
        yield float(np.abs(ours.numpy() - theirs / np.where(total > 0, total, 1))[kept].max())


def averages(draw: torch.Generator) -> Cases:
    """The running mean and the moving average of weights against torch's AveragedModel."""
    for kind in ("mean", "ema"):
        net = nn.Linear(5, 3).double()
        theirs = (
            AveragedModel(net)
            if kind == "mean"
            else AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        )
        running, ours = RunningAverage(), {n: p.detach().clone() for n, p in net.named_parameters()}
        for number in range(1, 21):
            with torch.no_grad():
                for param in net.parameters():
                    param.copy_(torch.randn(param.shape, generator=draw, dtype=torch.float64))
            state = {n: p.detach().clone() for n, p in net.named_parameters()}
            theirs.update_parameters(net)
            running = running.add(state)
            if (
                kind == "ema"
            ):  # torch's keeps the bias of its first value; ours debiases: undone for the comparison
                if number == 1:
                    ours = dict(state)
                else:
                    ours = {n: 0.9 * ours[n] + 0.1 * state[n] for n in ours}
        found = running.result() if kind == "mean" else ours
        expected = {n: p.detach() for n, p in theirs.module.named_parameters()}
        yield max(float((found[n] - expected[n]).abs().max()) for n in expected)


def debiased(draw: torch.Generator) -> Cases:
    """Our moving average against the weighted mean of all iterates written out."""
    values = [torch.randn(6, generator=draw, dtype=torch.float64) for _ in range(30)]
    average_ = {"w": values[0].clone()}
    for number, value in enumerate(values, 1):
        ema_update(average_, {"w": value}, 0.9, number)
    weights = torch.tensor([0.9 ** (len(values) - i) for i in range(1, len(values) + 1)], dtype=torch.float64)
    yield float((average_["w"] - (torch.stack(values) * weights[:, None]).sum(0) / weights.sum()).abs().max())


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
    Comparison("mixture of Gaussians: mean, variance", "numerical integration", mixtures, 1e-7),
    Comparison("mixture of class probabilities", "mean of the exponentials", mixture_of_classes, 1e-14),
    Comparison("CRPS of a Gaussian and of a mixture", "numerical integration", crps, 1e-6),
    Comparison("AUROC, AUPR (out, in) of OOD detection", "scikit-learn", detection, 1e-12),
    Comparison("AURC", "a loop over coverages", risk, 1e-12),
    Comparison("ambiguity decomposition", "its definition", decomposition, 1e-12),
    Comparison("greedy selection: the picks", "a loop that measures every trial anew", caruana, 0.0),
    Comparison("temperature", "L-BFGS on log T", tempering, 1e-5),
    Comparison("isotonic calibration", "scikit-learn `IsotonicRegression`", isotonic, 1e-9),
    Comparison("running mean and biased EMA of weights", "torch `AveragedModel`", averages, 1e-12),
    Comparison("debiased EMA of weights", "the weighted mean written out", debiased, 1e-12),
)
