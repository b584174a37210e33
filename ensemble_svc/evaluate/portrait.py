"""How an ensemble's members differ, in a handful of numbers, and how it does on each class.

Shapes: K members, N examples, C classes, D targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ensemble_svc.evaluate import diversity
from ensemble_svc.evaluate.slices import by_class
from ensemble_svc.spec.job import Task


def differences(
    task: Task, members: Mapping[str, Tensor], target: Tensor, weights_K: Tensor
) -> dict[str, Any]:
    """How the members differ, means over their pairs.

    Args:
        members: ``log_probs`` [K, N, C], or ``mean`` [K, N, D]; other keys are ignored.
        weights_K: theirs in the ensemble, sum 1.

    Returns:
        Of classes ``disagreement`` (share of the rows on which two members say different classes), ``q_statistic``
        and ``error_correlation`` (of their being right). Of numbers ``distance`` (mean squared difference of two
        members), ``error_correlation`` and ``ambiguity``: the ensemble's squared error, the members' and the
        difference. None stands where a number says nothing.
    """
    if task == "classification":
        said_KN = members["log_probs"].argmax(2)
        right_KN = said_KN == target
        return {
            "disagreement": _over_pairs(diversity.disagreement(said_KN)),
            "q_statistic": _over_pairs(diversity.q_statistic(right_KN)),
            "error_correlation": _over_pairs(diversity.error_correlation(~right_KN)),
        }
    mean_KND = members["mean"].double()
    parts = diversity.ambiguity(mean_KND, target.double(), weights_K)
    return {
        "distance": _over_pairs(diversity.distance(mean_KND)),
        "error_correlation": _over_pairs(diversity.error_correlation((target - mean_KND).flatten(1))),
        "ambiguity": {
            "ensemble": parts.ensemble,
            "members": parts.members,
            "ambiguity": parts.ambiguity,
        },
    }


def each_class(log_probs_NC: Tensor, target_N: Tensor) -> list[dict[str, Any]]:
    """Rows, accuracy (the recall) and NLL of each true class that has rows, by its number."""
    parts = by_class({"log_probs": log_probs_NC}, target_N, names=("accuracy", "nll"))
    return [{"class": int(part.label), "rows": part.rows, **part.metrics} for part in parts]


def _over_pairs(values_KK: Tensor) -> float | None:
    mean = diversity.mean_over_pairs(values_KK)
    return None if math.isnan(mean) else mean
