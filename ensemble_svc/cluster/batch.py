"""Units of work done by long-lived Ray actors: each loads what all units need once, then takes one after another.

``spreading.Spread`` over a cluster; the units are the files of ``evaluate`` and ``predict``. A unit goes to whichever
actor is free; what comes of it is handed on in the order of the units. An actor that dies has its unit done again by
another. Units are handed out only so far ahead of what has been handed on, so the memory of the driver does not grow
with their number.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import ray

from ensemble_svc import errors
from ensemble_svc.cluster.session import connect
from ensemble_svc.cluster.worker import settle_in
from ensemble_svc.errors import ClusterError, DataError, EnsembleSvcError, family
from ensemble_svc.spreading import Load, Result, State, Tell, Unit, Work

TRIES = 3
"""How often a unit is begun before it is given up as one that kills its actor."""
AHEAD = 4
"""Units for each actor that may wait for those before them."""
POLL_S = 0.25
"""How often the actors are asked how far they are."""
START_S = 120.0
"""How long to wait for the first actor."""


@dataclass(frozen=True)
class Fault:
    """What ended a unit, or kept an actor from beginning; as it crosses the border of a process."""

    kind: str
    text: str

    @classmethod
    def of(cls, fault: EnsembleSvcError) -> Fault:
        return cls(family(fault).__name__, str(fault))

    def error(self) -> EnsembleSvcError:
        """The fault as it was raised, with its message alone."""
        found: EnsembleSvcError = getattr(errors, self.kind)(self.text)
        return found


class Reader(Generic[State, Unit, Result]):
    """The actor."""

    def __init__(self) -> None:
        self._number, self._rows = -1, 0

    def load(self, load: Load[State]) -> Fault | None:
        """Make ready; its one state serves all units."""
        settle_in(0)
        try:
            self._state = load()
        except EnsembleSvcError as fault:
            return Fault.of(fault)
        return None

    def do(
        self, work: Work[State, Unit, Result], number: int, unit: Unit
    ) -> tuple[list[Result], Fault | None, int]:
        """All that comes of a unit, what ended it early, and its rows."""
        self._number, self._rows = number, 0
        results: list[Result] = []
        try:
            results.extend(work(self._state, number, unit, self._hear))
        except EnsembleSvcError as fault:
            return results, Fault.of(fault), self._rows
        return results, None, self._rows

    def rows(self) -> tuple[int, int]:
        """Its present unit, and rows of it so far."""
        return self._number, self._rows

    def _hear(self, rows: int) -> None:
        self._rows = rows


@dataclass(frozen=True)
class Actors:
    """Does units over a cluster."""

    address: str | None = None
    """Of a cluster that runs; None embeds one for as long as it takes."""
    most: int | None = None
    """Actors; as many as there are CPUs when absent."""

    def __call__(
        self, load: Load[State], work: Work[State, Unit, Result], units: Sequence[Unit], *, tell: Tell
    ) -> Generator[tuple[int, Result | DataError], None, None]:
        """As ``spreading.Spread`` says.

        Raises:
            ClusterError: unreachable, lost, without room for one actor, or none of whose machines sees the run.
        """
        with connect(self.address, directory=Path.cwd()):
            size = min(len(units), self.most or int(ray.cluster_resources().get("CPU", 1)))
            crew = Crew(load, work, units, max(1, size))
            try:
                with closing(crew):
                    yield from crew.run(tell)
            except ray.exceptions.RayTaskError:
                raise  # a bug in the work, with its traceback
            except (ray.exceptions.RayError, ConnectionError) as lost:
                raise ClusterError(f"the cluster was lost while rows were read: {lost}") from lost


class Crew(Generic[State, Unit, Result]):
    """The actors of one work, and what they have done."""

    def __init__(
        self, load: Load[State], work: Work[State, Unit, Result], units: Sequence[Unit], size: int
    ) -> None:
        self._units, self._size = units, size
        self._load, self._work = ray.put(load), ray.put(work)
        self._waiting = list(range(len(units)))
        self._free: list[Any] = []
        self._calls: dict[Any, tuple[Any, int | None]] = {}
        """What runs → its actor and its unit, None while it loads."""
        self._asked: dict[Any, int] = {}
        self._done: dict[int, tuple[list[Result], Fault | None]] = {}
        self._deaths: Counter[int] = Counter()
        self._unborn = 0
        """Actors that died while they loaded, since one did not."""
        self._rows = [0] * len(units)
        self._next, self._began = 0, False
        for _ in range(size):
            self._hire()

    def run(self, tell: Tell) -> Iterator[tuple[int, Result | DataError]]:
        """What comes of the units, in their order."""
        until = time.monotonic() + START_S
        while self._next < len(self._units):
            self._hand_out()
            ready, _ = ray.wait(list(self._calls), timeout=POLL_S)
            for call in ready:
                self._take(call)
            self._listen()
            tell(sum(self._rows))
            if not self._began and time.monotonic() > until:
                raise ClusterError(f"the cluster had no free CPU for a reader within {START_S:.0f} s")
            yield from self._in_order()

    def close(self) -> None:
        """End the actors."""
        for actor in [*self._free, *(actor for actor, _ in self._calls.values())]:
            ray.kill(actor)

    def _hire(self) -> None:
        remote: Any = ray.remote
        actor = (
            remote(Reader)
            .options(num_cpus=1, max_concurrency=2, max_restarts=0, scheduling_strategy="SPREAD")
            .remote()
        )
        self._calls[actor.load.remote(self._load)] = (actor, None)

    def _hand_out(self) -> None:
        last = self._next + AHEAD * self._size
        while self._free and self._waiting and self._waiting[0] < last:
            actor, number = self._free.pop(), heapq.heappop(self._waiting)
            self._calls[actor.do.remote(self._work, number, self._units[number])] = (actor, number)

    def _take(self, call: Any) -> None:
        actor, number = self._calls.pop(call)
        try:
            found = ray.get(call)
        except ray.exceptions.RayTaskError:
            ray.kill(actor)
            raise
        except ray.exceptions.RayError as lost:
            ray.kill(actor)
            self._lose(number, lost)
            return
        if number is None:
            if found is not None:
                ray.kill(actor)
                raise ClusterError(
                    f"a reader on the cluster: {found.text} (The run and the rows must lie where every machine of the "
                    "cluster sees them, under the same path.)"
                )
            self._began, self._unborn = True, 0
        else:
            results, fault, self._rows[number] = found
            self._done[number] = results, fault
        self._free.append(actor)

    def _lose(self, number: int | None, lost: ray.exceptions.RayError) -> None:
        """An actor died: another takes its place, and its unit is done again unless it has killed too many."""
        if number is None:
            self._replace_unborn(lost)
            return
        self._deaths[number] += 1
        self._hire()
        self._rows[number] = 0
        if self._deaths[number] < TRIES:
            heapq.heappush(self._waiting, number)
            return
        name = getattr(self._units[number], "path", self._units[number])
        self._done[number] = (
            [],
            Fault("DataError", f"{name}: {TRIES} readers died over it, one after another."),
        )

    def _replace_unborn(self, lost: ray.exceptions.RayError) -> None:
        """An actor died while it loaded: another takes its place, or those that live go on without.

        Raises:
            ClusterError: none lives, and as many died in a row as ``TRIES`` for each place.
        """
        self._unborn += 1
        if self._unborn < TRIES * self._size:
            self._hire()
        elif not self._free and not self._calls:
            raise ClusterError(
                f"the readers on the cluster die while they load the ensemble: {lost}"
            ) from lost

    def _listen(self) -> None:
        """Ask the actors at work how far they are, and hear those that have answered."""
        ready, _ = (
            ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0) if self._asked else ([], [])
        )
        for answer in ready:
            del self._asked[answer]
            try:
                number, rows = ray.get(answer)
            except ray.exceptions.RayError:
                continue  # its call says so too
            if number >= self._next and number not in self._done:
                self._rows[number] = rows
        heard = set(self._asked.values())
        for actor, unit in self._calls.values():
            if unit is not None and unit not in heard:
                self._asked[actor.rows.remote()] = unit

    def _in_order(self) -> Iterator[tuple[int, Result | DataError]]:
        while self._next in self._done:
            results, fault = self._done.pop(self._next)
            for result in results:
                yield self._next, result
            if fault is not None:
                error = fault.error()
                if not isinstance(error, DataError):
                    raise error
                yield self._next, error
            self._next += 1
