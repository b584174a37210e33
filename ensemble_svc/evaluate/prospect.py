"""What as many members again would bring, at a cost that stays small beside the training.

The forecast's many subsets are combined on what the score depends on alone: of classes the probability of the true one
and of all others together, which a mixture of members mixes just so (law: the NLL is the same). Beyond ``MOST_NUMBERS``
numbers only every so-many-th row is looked at.

Shapes: K members, N examples, C classes, D targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.forecast import FEWEST_MEMBERS, forecast
from ensemble_svc.evaluate.portions import Mixer
from ensemble_svc.spec.job import Task

MOST_NUMBERS = 1_000_000
"""Members times rows times targets; the forecast then takes a second or two."""


def prospect(
    task: Task,
    members: Mapping[str, Tensor],
    target: Tensor,
    mixer: Mixer,
    *,
    seed: int,
) -> dict[str, Any] | None:
    """The change of the equal mixture's score that as many members again would make.

    Args:
        members: ``log_probs`` [K, N, C]; or ``mean`` and, for a likelihood, ``log_variance`` [K, N, D].
        mixer: from members to the predictions of subsets.
        seed: of the random subsets.

    Returns:
        ``{"metric", "members": K, "more": K, "estimate", "error", "limit"}``, the estimate in the metric's own
        direction, ``error`` its standard error, ``limit`` what endlessly many would reach; None where there are too
        few members or the score is infinite.
    """
    kept, target = _thinned({name: members[name] for name in _KEYS if name in members}, target)
    num_members = len(next(iter(kept.values())))
    if num_members < FEWEST_MEMBERS or len(target) < 2:
        return None
    if task == "classification":
        kept, target = truth_against_rest(kept["log_probs"], target)
    name = "nll" if task == "classification" or "log_variance" in kept else "rmse"
    try:
        found = forecast(task, kept, target, mixer, name=name, seed=seed)
    except EnsembleError:
        return None
    change = found.more(num_members)
    facts = {"metric": name, "members": num_members, "more": num_members}
    return facts | {"estimate": change.estimate, "error": change.error, "limit": found.limit}


_KEYS = ("log_probs", "mean", "log_variance")


def truth_against_rest(log_probs_KNC: Tensor, target_N: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Two classes, the true one (number 0) and the rest, and their targets."""
    index_KN1 = target_N[None, :, None].long().expand(len(log_probs_KNC), -1, 1)
    truth_KN1 = log_probs_KNC.double().gather(2, index_KN1).clamp(max=0)
    rest_KN1 = torch.log(-torch.expm1(truth_KN1))
    return {"log_probs": torch.cat([truth_KN1, rest_KN1], dim=2)}, torch.zeros_like(target_N)


def _thinned(members: dict[str, Tensor], target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    widest = next(iter(members.values()))
    each = len(widest) * (1 if "log_probs" in members else widest.shape[2])
    step = max(1, each * len(target) // MOST_NUMBERS)
    return {name: value[:, ::step] for name, value in members.items()}, target[::step]
