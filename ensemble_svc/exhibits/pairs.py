"""Member against member: how often they differ, and how far they err together.

Shapes: K members, N rows, T targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ensemble_svc.evaluate.diversity import disagreement, distance, error_correlation
from ensemble_svc.exhibits.plain import plain

MEMBERS = 32
"""Members compared at most; of more those of the largest weights."""


def pairs(
    ids: Sequence[str], weights: Sequence[float], members: Mapping[str, Tensor], target: Tensor
) -> dict[str, Any]:
    """The matrices of the members, those that differ least from the others first.

    Args:
        members: the chosen ones' ``log_probs`` [K, N, C], or ``mean`` [K, N, T].

    Returns:
        ``members`` the ids, ``of`` the number there are, ``disagreement`` [K][K] (share of the rows on which two say
        different classes) or ``distance`` (root of the mean squared difference), ``error_correlation`` [K][K], None
        where a member's error is constant.
    """
    heaviest = sorted(range(len(ids)), key=lambda k: (-weights[k], k))[:MEMBERS]
    some = torch.tensor(heaviest)
    if "log_probs" in members:
        said_KN = members["log_probs"][some].argmax(2)
        name, apart_KK, error_KN = "disagreement", disagreement(said_KN), said_KN != target
    else:
        mean_KNT = members["mean"][some].double()
        name, apart_KK = "distance", distance(mean_KNT).sqrt()
        error_KN = (target - mean_KNT).flatten(1)
    order = apart_KK.sum(dim=1).argsort(stable=True)
    alike_KK = error_correlation(error_KN)
    return {
        "members": [ids[heaviest[k]] for k in order.tolist()],
        "of": len(ids),
        name: plain(apart_KK[order][:, order]),
        "error_correlation": plain(alike_KK[order][:, order]),
    }
