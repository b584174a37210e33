"""Metrics of many subsets' mixtures, a portion of the rows and of the subsets at a time, so that memory is bounded.

How members are mixed is the caller's function (a ``Mixer``). The mixtures of several subsets are measured as though
they were one prediction of so many times the rows.

Shapes: P subsets, K members, N rows, G groups of rows, S statistics of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ensemble_svc.evaluate.checks import check_mixture
from ensemble_svc.evaluate.metrics import METRICS

Subset = tuple[int, ...]
"""Positions of members."""
Mixer = Callable[[Mapping[str, Tensor], Tensor], Callable[[Sequence[Subset]], Mapping[str, Tensor]]]
"""(members [K, N, …], target) → from subsets to their predictions, stacked [P, N, …]."""
NUMBERS = 1 << 20
"""Of the members, and of the mixtures, looked at together."""


def subset_sums(
    members: Mapping[str, Tensor],
    target: Tensor,
    subsets: Sequence[Subset],
    mixer: Mixer,
    names: Sequence[str],
    *,
    bins: int,
    groups: int = 1,
) -> dict[str, Tensor]:
    """Each metric's statistics of each subset's mixture, summed over groups of rows: [P, G, S] float64 on the CPU.

    Args:
        members: checked, [K, N, …].
        names: metrics that are functions of means over rows.
        groups: row n is in group n mod G.

    Raises:
        EnsembleError: mixtures that lack what a metric needs.
    """
    num_rows, width = len(target), _numbers_of_row(members)
    step = max(1, NUMBERS // (width * len(next(iter(members.values())))))
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for start in range(0, num_rows, step):
        rows = slice(start, start + step)
        some = {key: stack[:, rows] for key, stack in members.items()}
        group_N = torch.arange(start, start + len(target[rows]), device=target.device) % groups
        mixed, at_once = mixer(some, target[rows]), max(1, NUMBERS // (len(group_N) * width))
        found: dict[str, list[Tensor]] = {name: [] for name in names}
        for first in range(0, len(subsets), at_once):
            predictions = mixed(subsets[first : first + at_once])
            check_mixture(names, predictions, num_members=max(map(len, subsets[first : first + at_once])))
            for name in names:
                found[name].append(_grouped(name, predictions, target[rows], bins, group_N, groups))
        for name, pieces in found.items():
            parts[name].append(torch.cat(pieces))
    return {name: torch.stack(each).sum(dim=0) for name, each in parts.items()}


def subset_values(
    members: Mapping[str, Tensor],
    target: Tensor,
    subsets: Sequence[Subset],
    mixer: Mixer,
    name: str,
    *,
    bins: int,
) -> Tensor:
    """A metric of each subset's mixture that is no function of means over rows, [P] float64."""
    mixed, values = mixer(members, target), []
    for subset in subsets:
        prediction = {key: stack[0] for key, stack in mixed([subset]).items()}
        check_mixture([name], prediction, num_members=len(subset))
        values.append(METRICS[name].value(prediction, target, bins))
    return torch.tensor(values, dtype=torch.float64)


def _grouped(
    name: str,
    predictions: Mapping[str, Tensor],
    target: Tensor,
    bins: int,
    group_N: Tensor,
    groups: int,
) -> Tensor:
    """Sums over groups of the statistics of several predictions of the same rows, [P, G, S]."""
    number = len(next(iter(predictions.values())))
    flat = {key: stack.flatten(0, 1) for key, stack in predictions.items()}
    repeated = target.repeat(number, *[1] * (target.ndim - 1))
    rows_PNS = METRICS[name].statistics(flat, repeated, bins).unflatten(0, (number, len(target)))
    if groups == 1:
        return rows_PNS.sum(dim=1, keepdim=True).cpu()
    sums_PGS = rows_PNS.new_zeros(number, groups, rows_PNS.shape[2])
    return sums_PGS.index_add_(1, group_N, rows_PNS).cpu()


def _numbers_of_row(members: Mapping[str, Tensor]) -> int:
    return max(1, sum(stack[0, :1].numel() for stack in members.values()))
