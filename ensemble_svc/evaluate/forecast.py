"""What more members would buy: a curve a + b / size through the ensembles of some of the members.

For the squared error (and the Brier score) of a mean of k exchangeable members the expectation is exactly of
that form (Krogh & Vedelsby 1995; Breiman 1996); for other metrics it is an approximation, good once k is not
tiny, so the curve is fitted to sizes of a third of the members and more. a is what endlessly many members
would reach.

The uncertainty is of two kinds, each by a jackknife (Efron & Stein 1981) over what was measured once: other
members (leave out each member's subsets) and other rows (leave out each of some groups of rows). The
residuals of the fit would say far too little, as all its points share members and rows.

Law: a metric that is a + b / k in truth is forecast exactly.

Shapes: K members, N examples, P subsets, G groups of rows, S statistics of a row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.checks import check_prediction, split_members
from ensemble_svc.evaluate.curve import subsets
from ensemble_svc.evaluate.metrics import METRICS, applicable
from ensemble_svc.evaluate.portions import Mixer, subset_sums
from ensemble_svc.spec.job import Task

FEWEST_MEMBERS, FEWEST_DRAWS = 3, 4
"""Leaving a member out must leave two sizes to fit a curve through."""
NUM_SIZES = 4
"""Sizes measured at most: many subsets of few sizes tell more of the slope than few of many."""


@dataclass(frozen=True)
class Change:
    """A forecast difference of a metric."""

    estimate: float
    """In the metric's own direction: below 0 is better where less is better."""
    error: float
    """Standard error."""


@dataclass(frozen=True)
class Forecast:
    """Metric of k members = ``limit`` + ``slope`` / k."""

    size: int
    """Members there are."""
    limit: float
    slope: float
    limit_error: float
    """Standard errors, of other members and other rows together."""
    slope_error: float
    member_error: float
    """Standard error of the metric at ``size`` by other members alone: how much it matters which they are."""

    def at(self, size: int) -> float:
        """The metric that an ensemble of this size is expected to have."""
        return self.limit + self.slope / size

    def more(self, members: int) -> Change:
        """The change that so many more members than there are would make, on these rows.

        Its error is that of the slope, and that of who the next ones will be: if each of K members moves
        the metric by h / K, m more change its mean by a variance of h² m / (K (K + m)).

        Raises:
            EnsembleError: fewer members than none.
        """
        if members < 0:
            raise EnsembleError(f"members is {members}; the forecast is for 0 or more members more.")
        step = 1 / (self.size + members) - 1 / self.size
        luck = self.member_error * math.sqrt(members / (self.size + members))
        return Change(self.slope * step + 0.0, math.hypot(self.slope_error * step, luck))


def forecast(
    task: Task,
    members: Mapping[str, Tensor],
    target: Tensor,
    mixer: Mixer,
    *,
    name: str,
    bins: int = 15,
    seed: int,
    draws: int = 40,
    groups: int = 20,
) -> Forecast:
    """The curve of one metric, from random subsets of the members.

    Args:
        members: ``log_probs`` [K, N, C], or ``mean`` and ``log_variance`` [K, N, D]; other keys are ignored.
        target: class numbers [N]; or numbers [N, D] in the units of the mean.
        mixer: from members to the predictions of subsets; for regression with ``log_density``.
        name: the metric.
        bins: of the calibration error.
        seed: of the random subsets.
        draws: subsets of a size; all of them where there are no more than this.
        groups: of rows, every G-th row, for the rows' part of the standard errors.

    Raises:
        EnsembleError: as ``measure``; fewer than 3 members or 2 rows; a metric that is infinite somewhere.
    """
    each = split_members(task, members)
    for k, member in enumerate(each):
        check_prediction(task, member, target, who=f"member {k}")
    if len(each) < FEWEST_MEMBERS or len(target) < 2 or min(draws, groups) < FEWEST_DRAWS:
        raise EnsembleError(
            f"{len(each)} members on {len(target)} rows, {draws} draws and {groups} groups, say nothing of "
            f"more members; it takes {FEWEST_MEMBERS} members, 2 rows and {FEWEST_DRAWS} of the others."
        )
    (name,) = applicable(task, each[0], (name,))
    kept = {key: members[key] for key in each[0]}
    chosen = _all_subsets(len(each), seed, draws)
    groups = min(groups, len(target))
    sums_PGS = subset_sums(kept, target, chosen, mixer, (name,), bins=bins, groups=groups)[name]
    return _fitted(name, chosen, sums_PGS, _group_sizes(len(target), groups), len(each))


def fit_curve(sizes: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """Weighted least squares of a + b / size: (a, b).

    The weight of a size k is k: the mean over its subsets has a variance of about 1 / k, since K / k of them
    share no member and each varies as 1 / k.

    Raises:
        EnsembleError: fewer than two sizes, or a value that is not finite.
    """
    if len(set(sizes)) < 2 or len(sizes) != len(values) or not all(math.isfinite(v) for v in values):
        raise EnsembleError(
            f"a curve needs finite values at two sizes or more, got {list(values)} at {list(sizes)}."
        )
    size_P, value_P = (torch.tensor(v, dtype=torch.float64) for v in (list(sizes), list(values)))
    weight_P, inverse_P = size_P / size_P.sum(), 1 / size_P
    middle, mean = (weight_P * inverse_P).sum(), (weight_P * value_P).sum()
    away_P = weight_P * (inverse_P - middle)
    slope = (away_P * (value_P - mean)).sum() / (away_P * (inverse_P - middle)).sum()
    return (mean - slope * middle).item(), slope.item()


def _all_subsets(num_members: int, seed: int, draws: int) -> list[tuple[int, ...]]:
    """Neighbours on a circle of members, from many starts, so that each member is in about equally many.

    Whichever member is left out, what remains is a fair sample of the others. Only sizes of a third of the
    members and more: the form is that of large sizes, and a curve through the few first bends away from it.
    """
    generator = torch.Generator().manual_seed(seed)
    starts = min(num_members, draws)
    orders: list[list[int]] = []
    while len(orders) + starts <= draws:
        circle = torch.randperm(num_members, generator=generator).tolist()
        turns = [i * num_members // starts for i in range(starts)]
        orders += [circle[turn:] + circle[:turn] for turn in turns]
    smallest = -(-num_members // 3)
    sizes = sorted({smallest + i * (num_members - smallest) // (NUM_SIZES - 1) for i in range(NUM_SIZES)})
    return list(dict.fromkeys(s for size in sizes for s in subsets(num_members, size, orders)))


def _fitted(
    name: str, chosen: Sequence[tuple[int, ...]], sums_PGS: Tensor, count_G: Tensor, num_members: int
) -> Forecast:
    inside_PK = torch.zeros(len(chosen), num_members, dtype=torch.float64)
    for p, subset in enumerate(chosen):
        inside_PK[p, list(subset)] = 1
    total_PS = sums_PGS.sum(dim=1)
    value_P = METRICS[name].finish(total_PS / count_G.sum())
    whole = _fit_subsets(inside_PK, value_P)
    without_member = _without_each(inside_PK, value_P)
    without_rows = [
        _fit_subsets(
            inside_PK, METRICS[name].finish((total_PS - sums_PGS[:, g]) / (count_G.sum() - count_G[g]))
        )
        for g in range(len(count_G))
    ]
    limit_error, slope_error = (
        math.sqrt(_jackknife([c[i] for c in without_member]) + _jackknife([c[i] for c in without_rows]))
        for i in (0, 1)
    )
    member_error = math.sqrt(_jackknife([limit + slope / num_members for limit, slope in without_member]))
    return Forecast(num_members, *whole, limit_error, slope_error, member_error)


def _without_each(inside_PK: Tensor, value_P: Tensor) -> list[tuple[float, float]]:
    """The curve without each member in turn: through the subsets that it is not in."""
    num_members = inside_PK.shape[1]
    if len(value_P) < num_members + 1:
        return _curves_without(inside_PK, value_P)
    found = []
    for k in range(num_members):
        others = [j for j in range(num_members) if j != k]
        left_P = inside_PK[:, k] == 0
        found.append(_fit_subsets(inside_PK[left_P][:, others], value_P[left_P]))
    return found


def _curves_without(inside_PK: Tensor, value_P: Tensor) -> list[tuple[float, float]]:
    """``fit_curve`` without each member at once, S sizes; it grows with the members, not with their square."""
    sizes_S, where_P = inside_PK.sum(dim=1).unique(return_inverse=True)
    of_size_SP = torch.zeros(len(sizes_S), len(value_P), dtype=torch.float64)
    of_size_SP[where_P, torch.arange(len(value_P))] = 1
    count_SK = of_size_SP @ (1 - inside_PK)
    mean_SK = ((of_size_SP * value_P) @ (1 - inside_PK)) / count_SK.clamp(min=1)
    if not mean_SK.isfinite().all() or ((count_SK > 0).sum(dim=0) < 2).any():
        raise EnsembleError(
            "without one of the members there is no curve: too few sizes, or no finite metric."
        )
    weight_SK = sizes_S[:, None] * (count_SK > 0)
    weight_SK, inverse_S1 = weight_SK / weight_SK.sum(dim=0), 1 / sizes_S[:, None]
    middle_K, whole_K = (weight_SK * inverse_S1).sum(dim=0), (weight_SK * mean_SK).sum(dim=0)
    away_SK = weight_SK * (inverse_S1 - middle_K)
    slope_K = (away_SK * (mean_SK - whole_K)).sum(dim=0) / (away_SK * (inverse_S1 - middle_K)).sum(dim=0)
    return list(zip((whole_K - slope_K * middle_K).tolist(), slope_K.tolist(), strict=True))


def _fit_subsets(inside_PK: Tensor, value_P: Tensor) -> tuple[float, float]:
    """The curve through subsets of different sizes, weighted as in ``fit_curve``: (a, b).

    Where there are enough subsets, each member is allowed an effect of h / size, of mean 0, so that good members
    that happen to be in more of the small subsets do not bend the curve.
    """
    size_P = inside_PK.sum(dim=1)
    sizes, where_P, count = size_P.unique(return_inverse=True, return_counts=True)
    if len(value_P) < inside_PK.shape[1] + 2:
        means = torch.zeros_like(sizes).scatter_add_(0, where_P, value_P) / count
        return fit_curve(sizes.int().tolist(), means.tolist())
    if not value_P.isfinite().all():
        raise EnsembleError("the metric is not finite for some of the members together, so it has no curve.")
    root_P1 = (size_P / count[where_P]).sqrt()[:, None]
    effect_PK = inside_PK / size_P[:, None] - 1 / inside_PK.shape[1]
    design_PX = torch.cat([torch.ones_like(root_P1), 1 / size_P[:, None], effect_PK], dim=1)
    # as many effects as members sum to 0: gelsd takes the least of the solutions, which is that one
    solved = torch.linalg.lstsq(design_PX * root_P1, value_P[:, None] * root_P1, driver="gelsd").solution[
        :, 0
    ]
    return solved[0].item(), solved[1].item()


def _jackknife(values: Sequence[float]) -> float:
    """Variance of a statistic from its values with one part left out at a time."""
    mean = math.fsum(values) / len(values)
    return (len(values) - 1) / len(values) * math.fsum((value - mean) ** 2 for value in values)


def _group_sizes(num_rows: int, groups: int) -> Tensor:
    return torch.bincount(torch.arange(num_rows) % groups, minlength=groups)
