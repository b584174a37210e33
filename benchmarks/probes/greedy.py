"""Greedy selection with replacement by each metric, on as many threads as there are cores.

The clock runs from the members' predictions in memory (float32) to the picks, checks included.
"""

from __future__ import annotations

from functools import partial

import ensemble_svc  # noqa: F401 - first, since it sets how idle threads wait

# isort: split
import torch
from torch import Tensor

from benchmarks.members import CORES
from benchmarks.probes.measure import Measures, arguments, seconds_of, write
from ensemble_svc.aggregate.likelihood import log_likelihood
from ensemble_svc.aggregate.pools import LikelihoodPool, Pool, accuracy_pool, brier_pool
from ensemble_svc.aggregate.selection import greedy

PICKS = 50


def measure(num_members: int, num_rows: int, num_classes: int) -> Measures:
    """Seconds of a selection by each metric."""
    torch.set_num_threads(CORES)
    log_probs, target = members(num_members, num_rows, num_classes)
    pools = {"nll": likelihood_pool, "accuracy": accuracy_pool, "brier": brier_pool}
    return {
        name: ("s", seconds_of(partial(lambda make: greedy(make(log_probs, target), PICKS), make)))
        for name, make in pools.items()
    }


def likelihood_pool(log_probs_KNC: Tensor, target_N: Tensor) -> Pool:
    """Scored by the mixture's negative log likelihood."""
    return LikelihoodPool(log_likelihood({"log_probs": log_probs_KNC}, target_N))


def members(num_members: int, num_rows: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Log probabilities [K, N, C] of members that know more and more, and the classes [N]."""
    draw = torch.Generator().manual_seed(0)
    target_N = torch.randint(num_classes, (num_rows,), generator=draw)
    log_probs_KNC = torch.empty(num_members, num_rows, num_classes)
    for k, member_NC in enumerate(log_probs_KNC):
        member_NC.normal_(generator=draw).mul_(2)
        member_NC[torch.arange(num_rows), target_N] += 1 + k / num_members
        member_NC.copy_(member_NC.log_softmax(1))
    return log_probs_KNC, target_N


if __name__ == "__main__":
    (out,), tiny = arguments()
    write(measure(*((5, 500, 10) if tiny else (200, 50_000, 10))), out)
