"""Population based training: which members give up for which others, and with what values they go on.

Pure functions of the seed, the epoch and the losses (Jaderberg et al. 2017, arXiv:1711.09846).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from ensemble_svc.spec.direction import mean_loss
from ensemble_svc.spec.domains import Domain
from ensemble_svc.spec.randomness import evenly
from ensemble_svc.spec.schedulers import Pbt
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.spec.spaces import Space
from ensemble_svc.spec.yaml import frozen

FACTORS = (0.8, 1.2)
"""By one of which a number is perturbed."""


@dataclass(frozen=True)
class Generations:
    """When the members of a search's populations are compared, and by what; one trial is one member."""

    pbt: Pbt
    metric: str
    epochs: int

    @classmethod
    def of(cls, search: SearchSpec | None, epochs: int) -> Generations | None:
        """What the search asks for; None where members do not change."""
        if search is None or not isinstance(search.scheduler, Pbt):
            return None
        return cls(search.scheduler, search.metric, epochs)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Every epoch after which some members take over others' states, in order."""
        return tuple(range(self.pbt.interval, self.epochs, self.pbt.interval))

    def trial(self, member: int) -> int:
        """The trial of the member with this index."""
        return member

    def loss(self, values: Sequence[float]) -> float:
        """A member's loss by its metric, turned so that less is better."""
        return mean_loss(self.metric, values)


def exploited(losses: Mapping[int, float], quantile: float, *, seed: int, epoch: int) -> dict[int, int]:
    """The members that give up, each with the one whose state it takes over.

    Args:
        losses: by member, less is better; of equal ones, and of those that are not numbers, the earlier is better.
        quantile: share of the members that give up, one at least, and half at most.
    """
    order = sorted(losses, key=lambda member: (math.isnan(losses[member]), losses[member], member))
    count = min(max(1, int(quantile * len(order))), len(order) // 2)
    lost = order[len(order) - count :]
    return {member: order[int(_u(seed, member, epoch, "") * count)] for member in lost}


def explored(
    space: Space, values: Mapping[str, Any], pbt: Pbt, *, seed: int, member: int, epoch: int
) -> dict[str, Any]:
    """The values with which a member goes on that has taken over another's state, and its ``values``."""
    found = {}
    for dim in space.dims:
        chance, u = (_u(seed, member, epoch, f"{dim.name}:{number}") for number in range(2))
        again = chance < pbt.resample
        found[dim.key] = frozen(dim.domain.at(u) if again else perturbed(dim.domain, values[dim.key], u))
    return found


def perturbed(domain: Domain, value: Any, u: float) -> Any:
    """A value near another one, within the domain: a number times 0.8 or 1.2, of a few values a neighbour.

    Args:
        u: in [0, 1); which way.
    """
    factor = FACTORS[u >= 0.5]
    if domain.choice is not None:
        return domain.value(_step(domain, domain.number(value), u))
    if domain.num_values is not None:
        (_, low), *_, (_, high) = domain.ends()
        moved = domain.number(min(max(value * factor, low), high))
        own = domain.number(value)
        return domain.value(
            min(max(moved, 0), domain.num_values - 1) if moved != own else _step(domain, own, u)
        )
    (_, low), (_, high) = domain.ends()
    return min(max(value * factor, low), high)


def _step(domain: Domain, number: int, u: float) -> int:
    """The number of the value before or after one."""
    assert domain.num_values is not None
    return min(max(number + (1 if u >= 0.5 else -1), 0), domain.num_values - 1)


def _u(seed: int, member: int, epoch: int, what: str) -> float:
    """Evenly from [0, 1)."""
    return evenly(seed, member, "search", epoch, crc32(what.encode()))
