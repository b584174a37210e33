"""From coarse to fine: a space shrinks around the best trials of a stage, in each law's own scale.

Bounds are kept in the laws' unit interval, so that a narrower space is drawn from by the same points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ensemble_svc.registry import frozen
from ensemble_svc.spec.domains import Domain
from ensemble_svc.spec.spaces import Dim, Found, Space

LAST = 1 - 2**-53


@dataclass(frozen=True)
class Span:
    """What is left of one dimension."""

    low: float = 0.0
    high: float = 1.0
    items: tuple[int, ...] | None = None
    """Of a choice, the numbers of the items that are left; None: all."""
    cells: tuple[int, int] | None = None
    """Of a law of finitely many values as likely as each other, the numbers of the first and the last; None: all."""

    def at(self, domain: Domain, u: float) -> Any:
        """The value at ``u`` in [0, 1)."""
        if domain.choice is not None:
            items = range(len(domain.choice)) if self.items is None else self.items
            return domain.choice[items[min(int(u * len(items)), len(items) - 1)]]
        if self.cells is not None:
            first, last = self.cells
            return domain.value(min(first + int(u * (last - first + 1)), last))
        return domain.at(min((1 - u) * self.low + u * self.high, LAST))

    def ends(self, domain: Domain) -> list[Any]:
        """The first and the last value, or the items of a choice."""
        if domain.choice is not None:
            return [
                domain.choice[i] for i in (range(len(domain.choice)) if self.items is None else self.items)
            ]
        if self.cells is not None:
            return [domain.value(number) for number in self.cells]
        return [domain.at(min(self.low, LAST)), domain.at(min(self.high, LAST))]


Spans = Mapping[str, Span]
"""What is left of each dimension; all of those that are not named."""


def narrowed(
    space: Space, best: Sequence[Mapping[str, Any]], before: Spans, margin: float
) -> dict[str, Span]:
    """The space that the best trials span, widened by a margin, and never wider than it was.

    A dimension that none of them has stays as it was.

    Args:
        best: their values by key.
        margin: on either side, as a share of how wide the dimension was.
    """
    found = [space.placed(values) for values in best]
    return {dim.name: _narrow(dim, found, before.get(dim.name, Span()), margin) for dim in space.dims}


def drawn_within(space: Space, spans: Spans, point: Mapping[str, float]) -> dict[str, Any]:
    """The values by key at a point of the unit cube."""
    values = space.draw(lambda dim: spans.get(dim.name, Span()).at(dim.domain, point[dim.name]))
    return {key: frozen(value) for key, value in values.items()}


def _narrow(dim: Dim, found: Iterable[Found], before: Span, margin: float) -> Span:
    values = [one[dim.name] for one in found if dim.name in one]
    if not values:
        return before
    if dim.domain.choice is not None:
        return Span(items=tuple(sorted({dim.domain.number(value) for value in values})))
    if dim.domain.qloguniform is None and (count := dim.domain.num_values) is not None:
        return _whole([dim.domain.number(value) for value in values], before, margin, count)
    places, room = [dim.domain.quantile(value) for value in values], margin * (before.high - before.low)
    low, high = max(before.low, min(places) - room), min(before.high, max(places) + room)
    return Span(min(low, high), max(low, high))


def _whole(numbers: Sequence[int], before: Span, margin: float, count: int) -> Span:
    """The same of ``count`` values as likely as each other: whole ones are left, and the margin is rounded to them."""
    start, end = before.cells or (0, count - 1)
    room = round(margin * (end - start + 1))
    first, last = max(start, min(numbers) - room), min(end, max(numbers) + room)
    return Span(first / count, (last + 1) / count, cells=(first, last))
