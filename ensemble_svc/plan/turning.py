"""Which members of a population go on from others' states, and by what values; whoever trains them, and where.

A population is the members of one structure: one's weights and optimiser's state are another's only where both have
the same networks and parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.plan.structure import structure
from ensemble_svc.plan.varying import with_values
from ensemble_svc.spec.population import exploited, explored
from ensemble_svc.spec.schedulers import Pbt
from ensemble_svc.spec.search import SearchSpec

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Turn:
    """A member goes on from the state of another one."""

    source: int
    """Index of the other."""
    values: dict[str, Any]
    """By which it goes on, by dotted path."""


def turned(
    search: SearchSpec,
    pbt: Pbt,
    members: Mapping[int, MemberSpec],
    values: Mapping[int, Values],
    losses: Mapping[int, float],
    *,
    epoch: int,
) -> dict[int, Turn]:
    """What becomes of one population after an epoch, by the index of each member that gives up.

    Args:
        values: by which each member trains now.
        losses: of the members that still train, less is better.
    """
    if len(losses) < 2:
        return {}
    seed = next(iter(members.values())).job_seed
    found = exploited(losses, pbt.quantile, seed=seed, epoch=epoch)
    return {
        lost: Turn(best, _fresh(search, pbt, members[lost], values[lost], values[best], epoch))
        for lost, best in found.items()
    }


def _fresh(
    search: SearchSpec, pbt: Pbt, member: MemberSpec, own: Values, theirs: Values, epoch: int
) -> dict[str, Any]:
    """Values near those of the other; a key that would give the member another structure stays as it was."""
    moved = explored(search.flat, theirs, pbt, seed=member.job_seed, member=member.index, epoch=epoch)
    return {key: value if _fits(member, key, value) else own[key] for key, value in moved.items()}


def _fits(member: MemberSpec, key: str, value: Any) -> bool:
    return structure(with_values(member, {key: value}), 0) == structure(member, 0)
