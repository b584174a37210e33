"""Member against member: how often they differ, and how far they err together.

Shapes: K members, N rows, T targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ensemble_svc.evaluate.diversity import correlation_of, disagreement_of, distance_of
from ensemble_svc.exhibits.plain import plain
from ensemble_svc.exhibits.said import Said, pieces

MEMBERS = 32
"""Members compared at most; of more those of the largest weights."""


def pairs(ids: Sequence[str], weights: Sequence[float], members: Said, target: Tensor) -> dict[str, Any]:
    """The matrices of the members, those that differ least from the others first.

    Args:
        members: the chosen ones' ``log_probs`` [K, N, C], or ``mean`` [K, N, T].

    Returns:
        ``members`` the ids, ``of`` the number there are, ``disagreement`` [K][K] (share of the rows on which two say
        different classes) or ``distance`` (root of the mean squared difference), ``error_correlation`` [K][K], None
        where a member's error is constant.
    """
    heaviest = sorted(range(len(ids)), key=lambda k: (-weights[k], k))[:MEMBERS]
    key = "log_probs" if "log_probs" in members else "mean"
    some: Said = {key: [members[key][k] for k in heaviest]}
    if key == "log_probs":
        name = "disagreement"
        apart_KK = disagreement_of(said_Kn for _, said_Kn in _classes(some))
        alike_KK = correlation_of(lambda: (said_Kn != target[rows] for rows, said_Kn in _classes(some)))
    else:
        name = "distance"
        apart_KK = distance_of(said[key] for _, said in pieces(some)).sqrt()
        alike_KK = correlation_of(
            lambda: ((target[rows] - said[key].double()).flatten(1) for rows, said in pieces(some))
        )
    order = apart_KK.sum(dim=1).argsort(stable=True)
    return {
        "members": [ids[heaviest[k]] for k in order.tolist()],
        "of": len(ids),
        name: plain(apart_KK[order][:, order]),
        "error_correlation": plain(alike_KK[order][:, order]),
    }


def _classes(some: Said) -> Iterator[tuple[slice, Tensor]]:
    """Rows, and the classes that the members say of them, [K, n]."""
    return ((rows, said["log_probs"].argmax(2)) for rows, said in pieces(some))
