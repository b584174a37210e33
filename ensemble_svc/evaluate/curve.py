"""What the next member would buy: the ensemble's metrics against its size.

Subsets of the members are mixed and measured, all of them where they are few, otherwise random ones
that grow from one size to the next. The full size has one subset, the ensemble itself. How members are
combined is the caller's function, so this holds for any combination.

The band is the spread over subsets of *these* members on these rows. Toward the full size it closes because
the subsets come to share their members, not because the metric becomes certain.

Shapes: K members, N examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import comb
from typing import Any

import torch
from torch import Tensor

from ensemble_svc.evaluate.checks import check_prediction, split_members
from ensemble_svc.evaluate.metrics import METRICS, Names, applicable
from ensemble_svc.evaluate.portions import Mixer, Subset, subset_sums, subset_values
from ensemble_svc.spec.job import Task

MAX_SIZES = 12
"""Points of the curve; every size up to here, beyond it sizes in a geometric row."""
BAND = (0.1, 0.9)
"""The quantiles over subsets that are called low and high."""


def size_curve(
    task: Task,
    members: Mapping[str, Tensor],
    target: Tensor,
    mixer: Mixer,
    *,
    names: Names = "auto",
    bins: int = 15,
    seed: int,
    draws: int = 20,
) -> list[dict[str, Any]]:
    """Metrics of ensembles of 1, 2, … K of the members, over subsets of each size.

    Args:
        members: ``log_probs`` [K, N, C], or ``mean`` and ``log_variance`` [K, N, D]; other keys are ignored.
        target: class numbers [N]; or numbers [N, D] in the units of the mean.
        mixer: from members to the predictions of subsets; for regression with ``log_density``.
        names: which metrics; ``auto`` for all that the members allow.
        bins: of the calibration error.
        seed: of the random subsets.
        draws: subsets of a size; all of them where there are no more than this.

    Returns:
        ``[{"size": s, metric: {"mean", "low", "high"}}]``; low and high are the 10 % and 90 % quantiles
        over subsets (the nearest subset's value).

    Raises:
        EnsembleError: as ``measure``, or a combination without the mixture's density.
    """
    each = split_members(task, members)
    for k, member in enumerate(each):
        check_prediction(task, member, target, who=f"member {k}")
    kept = {key: members[key] for key in each[0]}
    chosen = applicable(task, each[0], names)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(each), generator=generator).tolist() for _ in range(draws)]
    some = [subsets(len(each), size, orders) for size in curve_sizes(len(each))]
    values = _values(kept, target, [subset for same in some for subset in same], mixer, chosen, bins)
    split = {name: values_P.split([len(same) for same in some]) for name, values_P in values.items()}
    return [
        {"size": len(same[0])} | {name: _spread(split[name][i]) for name in chosen}
        for i, same in enumerate(some)
    ]


def curve_sizes(num_members: int) -> list[int]:
    """Sizes at which the curve is measured, from 1 to the number of members."""
    if num_members <= MAX_SIZES:
        return list(range(1, num_members + 1))
    return sorted({round(num_members ** (i / (MAX_SIZES - 1))) for i in range(MAX_SIZES)})


def subsets(num_members: int, size: int, orders: list[list[int]]) -> list[tuple[int, ...]]:
    if comb(num_members, size) <= len(orders):
        return list(combinations(range(num_members), size))
    return [tuple(sorted(order[:size])) for order in orders]


def _values(
    members: Mapping[str, Tensor],
    target: Tensor,
    chosen: Sequence[Subset],
    mixer: Mixer,
    names: Sequence[str],
    bins: int,
) -> dict[str, Tensor]:
    """Each metric of each subset, [P] float64."""
    of_means = [name for name in names if METRICS[name].resamples]
    sums = subset_sums(members, target, chosen, mixer, of_means, bins=bins)
    values = {name: METRICS[name].finish(sums_PGS[:, 0] / len(target)) for name, sums_PGS in sums.items()}
    rest = [name for name in names if name not in of_means]
    return values | {name: subset_values(members, target, chosen, mixer, name, bins=bins) for name in rest}


def _spread(values_P: Tensor) -> dict[str, float]:
    low, high = (torch.quantile(values_P, q, interpolation="nearest").item() for q in BAND)
    return {"mean": values_P.mean().item(), "low": low, "high": high}
