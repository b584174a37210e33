"""What is shown of a regression: predicted against true, what its intervals hold, which rows it knows least.

Shapes: K members, N rows, T targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ensemble_svc.aggregate.calibration.variance import VarianceScale
from ensemble_svc.aggregate.decision import Decision, apply
from ensemble_svc.aggregate.uncertainty import variance
from ensemble_svc.exhibits.classes import ROWS
from ensemble_svc.exhibits.plain import plain
from ensemble_svc.exhibits.risk import Ranked, risk, some_of
from ensemble_svc.exhibits.said import Said, pieces

POINTS = 1500
"""Rows drawn at most, over all targets, evenly spread among all."""
TARGETS = 4
LEVELS = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)


def shown_of(decision: Decision, members: Said, target_NT: Tensor) -> dict[str, Any]:
    """Everything that is shown of the ensemble's numbers on some rows.

    Args:
        members: the chosen ones', in the decision's order: ``mean`` [K, N, T], and ``log_variance`` where they have it.

    Returns:
        ``scatter``; with variances ``coverage``; ``risk`` of the squared error and ``rows``, where there is any doubt
        to rank rows by.
    """
    target_NT = target_NT.double()
    mean_NT, spread_NT = _mixed(decision, members)
    found: dict[str, Any] = {"scatter": scatter(mean_NT, spread_NT, target_NT)}
    if "log_variance" in members:
        found["coverage"] = coverage(decision, members, target_NT)
    if spread_NT.any():
        found["risk"] = risk(
            ((target_NT - mean_NT).square().mean(1), spread_NT.square().mean(1)),
            _each(decision, members, target_NT),
        )
        found["rows"] = rows(mean_NT, spread_NT, target_NT)
    return found


def _calibrated(decision: Decision, some: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What members say with the scale that their variances were given."""
    calibrator = decision.calibrator
    if not isinstance(calibrator, VarianceScale):
        return dict(some)
    return {**some, "log_variance": calibrator.apply(some["log_variance"])}


def _mixed(decision: Decision, members: Said) -> tuple[Tensor, Tensor]:
    """The ensemble's mean and standard deviation, each [N, T] float64."""
    weights_K = torch.tensor(decision.weights, dtype=torch.float64)
    means, spreads = [], []
    for _, some in pieces(members):
        means.append(apply(decision, some)["mean"].double())
        spreads.append(_spread(_calibrated(decision, some), means[-1], weights_K))
    return torch.cat(means), torch.cat(spreads)


def _spread(members: Mapping[str, Tensor], mean_NT: Tensor, weights_K: Tensor) -> Tensor:
    """Standard deviation of the mixture, or of the members' means where they give no variance."""
    if "log_variance" in members:
        return variance(members["mean"], members["log_variance"], weights_K).total.sqrt()
    apart_KNT = (members["mean"].double() - mean_NT).square()
    return (weights_K[:, None, None] * apart_KNT).sum(0).sqrt()


def _one(decision: Decision, members: Said, k: int) -> tuple[Tensor, Tensor]:
    """A member's means and log variances, each [N, T] float64."""
    own = _calibrated(decision, {name: value[k] for name, value in members.items()})
    return own["mean"].double(), own["log_variance"].double()


def _each(decision: Decision, members: Said, target_NT: Tensor) -> Iterator[Ranked]:
    for k in some_of(len(decision.members)) if "log_variance" in members else ():
        mean_NT, log_variance_NT = _one(decision, members, k)
        yield (target_NT - mean_NT).square().mean(1), log_variance_NT.exp().mean(1)


def scatter(mean_NT: Tensor, spread_NT: Tensor, target_NT: Tensor) -> list[dict[str, Any]]:
    """Predicted against true, target by target.

    Returns:
        ``mean``, ``spread`` (standard deviation) and ``truth`` of the rows drawn, and ``explained``: R² over all rows,
        None where the target is constant.
    """
    targets = min(TARGETS, target_NT.shape[1])
    number = min(len(mean_NT), POINTS // targets)
    keep = torch.linspace(0, len(mean_NT) - 1, number).round().long().unique()
    drawn = []
    for t in range(targets):
        mean_N, truth_N = mean_NT[:, t], target_NT[:, t]
        total = (truth_N - truth_N.mean()).square().sum()
        explained = 1 - (truth_N - mean_N).square().sum() / total
        drawn.append(
            {
                "mean": plain(mean_N[keep]),
                "spread": plain(spread_NT[keep, t]),
                "truth": plain(truth_N[keep]),
                "explained": plain(explained) if total > 0 else None,
            }
        )
    return drawn


def coverage(decision: Decision, members: Said, target_NT: Tensor) -> dict[str, Any]:
    """Share of the targets inside the central intervals of each level, of the mixture and of single members."""
    some = some_of(len(decision.members))
    mixture_NT, each = torch.zeros_like(target_NT), []
    for k, weight in enumerate(decision.weights):
        mean_NT, log_variance_NT = _one(decision, members, k)
        level_NT = torch.special.ndtr((target_NT - mean_NT) / log_variance_NT.div(2).exp())
        mixture_NT += weight * level_NT
        if k in some:
            each.append(plain(_inside(level_NT)))
    return {"levels": plain(LEVELS), "ensemble": plain(_inside(mixture_NT)), "members": each}


def _inside(level_NT: Tensor) -> Tensor:
    """Of the targets, whose levels in their predicted laws are given, those inside each central interval."""
    distance = (level_NT - 0.5).abs().flatten().sort().values
    return torch.searchsorted(distance, LEVELS / 2, right=True).double() / len(distance)


def rows(mean_NT: Tensor, spread_NT: Tensor, target_NT: Tensor) -> dict[str, list[dict[str, Any]]]:
    """The rows that the ensemble doubts most, and those that lie farthest from it in its own deviations.

    Returns:
        ``doubtful`` by the mean variance and ``wrong`` by the largest error in deviations, the first ones first:
        position, truth, mean and spread of each target (the first four), and off, that largest error.
    """
    off_NT = (target_NT - mean_NT).abs() / spread_NT.clamp(min=torch.finfo(torch.float64).tiny)
    off_N = torch.where(spread_NT > 0, off_NT, 0.0).amax(1)

    def fact(n: int) -> dict[str, Any]:
        values = {"truth": target_NT, "mean": mean_NT, "spread": spread_NT}
        each = {name: plain(value[n, :TARGETS]) for name, value in values.items()}
        return {"position": n, **each, "off": float(off_N[n])}

    by = {"doubtful": spread_NT.square().mean(1), "wrong": off_N}
    order = {kind: score.argsort(descending=True, stable=True)[:ROWS] for kind, score in by.items()}
    return {kind: [fact(n) for n in some.tolist()] for kind, some in order.items()}
