"""Which of very many members are shown one by one: those that say most.

Pure and light: the terminal and the page pick alike. A run of ten thousand members has as many lines in its manifest;
a person reads the best, the worst, the lost and the chosen.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ensemble_svc.report.looks import look, ordered
from ensemble_svc.report.text import is_number

Member = Mapping[str, Any]

LOST = frozenset({"failed", "diverged", "excluded"})
LOST_SHARE = 5
"""One line of so many may be of a lost member."""


def picked(members: Sequence[Member], most: int, chosen: Collection[str] = ()) -> list[Member]:
    """At most so many members in their order: some lost ones, the chosen ones, of the others the best and the worst.

    Args:
        chosen: ids of those in the ensemble; they take at most half of the lines.
    """
    if len(members) <= most:
        return list(members)
    ranks = best_first(members)
    lost = [place for place in ranks if members[place].get("status") in LOST]
    own = [place for place in ranks if members[place].get("id") in chosen]
    taken = set(lost[: most // LOST_SHARE]) | set(own[: most // 2])
    rest = [place for place in ranks if place not in taken and members[place].get("status") not in LOST]
    room = most - len(taken)
    taken |= {*rest[: room - room // 3], *rest[len(rest) - room // 3 :]}
    return [members[place] for place in sorted(taken)]


def best_first(members: Sequence[Member]) -> list[int]:
    """Positions of the members by their held-out metric; those without one last, in their order."""
    first = ordered(next((found for member in members if (found := held_out(member))), {}))
    name = next((one for one in first if one.rpartition("/")[2] == "nll"), next(iter(first), "nll"))
    sign = -1.0 if look(name).higher_is_better else 1.0

    def worth(place: int) -> float:
        value = held_out(members[place]).get(name)
        return sign * float(value) if is_number(value) else math.inf

    return sorted(range(len(members)), key=lambda place: (worth(place), place))


def held_out(member: Member) -> Mapping[str, float]:
    """The metrics that members are ranked by: of validation rows, or of those out of its bag, or of any."""
    found = member.get("metrics") or {}
    return found.get("validation") or found.get("oob") or next(iter(found.values()), None) or {}


def spread(total: int, most: int, kept: Collection[int] = ()) -> list[int]:
    """At most about so many of the numbers below ``total``, evenly spread, and all that are to be kept, in order."""
    if total <= most:
        return list(range(total))
    return sorted({*(place * total // most for place in range(most)), *kept})
