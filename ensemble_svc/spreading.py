"""Units of work, each done by a worker that has loaded what all of them need: in this process one after another.

``cluster.batch`` does them over a cluster. Whoever does them, what comes of a unit comes in the order of the units.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Protocol, TypeVar

from ensemble_svc.errors import DataError

Tell = Callable[[int], None]
"""Hears how many rows were read so far."""
State = TypeVar("State")
Unit = TypeVar("Unit")
Result = TypeVar("Result")
Load = Callable[[], State]
Work = Callable[[State, int, Unit, Tell], Iterator[Result]]
"""(state, number of the unit, the unit, hears its rows so far) → what comes of it, a piece at a time.

Its ``DataError`` ends the unit, not the work: what came of the unit before stands.
"""


class Spread(Protocol):
    """Does units of work."""

    def __call__(
        self, load: Load[State], work: Work[State, Unit, Result], units: Sequence[Unit], *, tell: Tell
    ) -> Generator[tuple[int, Result | DataError], None, None]:
        """Each unit's number with what came of it, in the order of the units; last its fault, where it has one.

        Args:
            load: run once by each worker.
        """
        ...


def no_rows(broken: Sequence[str], source: object) -> str:
    """What is told where not one row was read.

    Args:
        broken: what is wrong with each file that could not be read.
        source: what was to be read.
    """
    if not broken:
        return f"{source}: there are no rows."
    return "not one row could be read:\n  " + "\n  ".join(broken)


def in_turn(
    load: Load[State], work: Work[State, Unit, Result], units: Sequence[Unit], *, tell: Tell
) -> Generator[tuple[int, Result | DataError], None, None]:
    """The units one after another in this process, each piece handed on as it comes."""
    state = load()
    rows = [0] * len(units)
    for number, unit in enumerate(units):

        def hear(count: int, number: int = number) -> None:
            rows[number] = count
            tell(sum(rows))

        try:
            for found in work(state, number, unit, hear):
                yield number, found
        except DataError as fault:
            yield number, fault
