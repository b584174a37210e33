"""What is decided on held-out rows: who is in the ensemble, and how it is calibrated."""

from __future__ import annotations

import math

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from torch import nn

from benchmarks.correctness.comparison import Cases, Comparison, classes
from ensemble_svc.aggregate.calibration.isotonic import fit_isotonic
from ensemble_svc.aggregate.calibration.temperature import fit_after
from ensemble_svc.aggregate.likelihood import log_likelihood
from ensemble_svc.aggregate.pools import LikelihoodPool
from ensemble_svc.aggregate.selection import greedy


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


COMPARISONS: tuple[Comparison, ...] = (
    Comparison("greedy selection: the picks", "a loop that measures every trial anew", caruana, 0.0),
    Comparison("temperature", "L-BFGS on log T", tempering, 1e-5),
    Comparison("isotonic calibration", "scikit-learn `IsotonicRegression`", isotonic, 1e-9),
)
