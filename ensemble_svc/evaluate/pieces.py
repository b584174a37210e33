"""The table of ``summary`` for members too many and rows too many to look at together.

The rows are measured a piece at a time and only sums are kept, and 5 bytes of each row and member where a metric ranks
the rows (``tally``): metrics and gains are exact, intervals are a bootstrap over groups of rows. Held beside is the
ensemble's own prediction. Memory beyond the input is bounded whatever the members; where those bytes would be too many,
the metrics that rank all rows are of the ensemble alone, and ``left_out`` names them.

Shapes: K members, N examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ensemble_svc.evaluate.checks import check_mixture, check_prediction, split_members
from ensemble_svc.evaluate.metrics import METRICS, applicable
from ensemble_svc.evaluate.rows import Prediction
from ensemble_svc.evaluate.summary import tabulate
from ensemble_svc.evaluate.tally import Tally
from ensemble_svc.spec.job import EvaluateSpec, Task

NUMBERS = 1 << 20
"""Of the members, looked at together."""
SCALAR_BYTES = 1 << 29
"""Of the rows, held for metrics that rank them; beyond, those are left out."""
Say = Callable[[Mapping[str, Tensor], slice], Sequence[Prediction]]
"""(members' predictions of some rows, which rows) → of each rival, then of the ensemble."""


def summarize_in_pieces(
    task: Task,
    members: Mapping[str, Tensor],
    say: Say,
    target: Tensor,
    *,
    spec: EvaluateSpec,
    best: int | None,
    seed: int,
    rivals: Sequence[str] = (),
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What ``summarize`` returns, and the ensemble's prediction of all rows.

    Args:
        members: [K, N, …].
        say: the predictions of the rivals, in their order, and of the ensemble.
        rivals: their names.

    Raises:
        EnsembleError: as ``summarize``.
    """
    num_members = len(split_members(task, members))
    names = applicable(task, split_members(task, members)[0], spec.metrics)
    tally = Tally(names, num_members + len(rivals) + 1, bins=spec.bins)
    said: list[Prediction] = []
    for rows in pieces(members):
        some = {key: stack[:, rows] for key, stack in members.items()}
        each, others = split_members(task, some), say(some, rows)
        for k, member in enumerate(each):
            check_prediction(task, member, target[rows], who=f"member {k}")
        check_mixture(names, others[-1], num_members=num_members)
        tally.add([*each, *others], target[rows])
        if tally.ranks.bytes > SCALAR_BYTES:
            tally.ranks.forget()
        said.append(others[-1])
    ensemble = {key: torch.cat([one[key] for one in said]) for key in said[0]}
    check_prediction(task, ensemble, target, who="the ensemble")
    measured = tally.measured(resamples=spec.resamples, seed=seed)
    table = tabulate(
        measured, num_members, rows=len(target), confidence=spec.confidence, best=best, rivals=tuple(rivals)
    )
    rest = tally.ranks.left_out  # of the members; the ensemble's own prediction is here
    table["ensemble"] |= {name: METRICS[name].value(ensemble, target, spec.bins) for name in rest}
    if rest:
        table["left_out"] = list(rest)
    return table, ensemble


def pieces(members: Mapping[str, Tensor]) -> list[slice]:
    """The rows in order, about ``NUMBERS`` of the members' numbers together; at least one."""
    stacks = list(members.values())
    num_rows = stacks[0].shape[1]
    step = max(1, NUMBERS * num_rows // max(1, sum(stack.numel() for stack in stacks)))
    return [slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step)]
