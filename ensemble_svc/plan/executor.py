"""Where slots are trained: the Protocol that every executor keeps, and what a place has to offer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

from ensemble_svc.errors import PlanError
from ensemble_svc.plan.plan import Slot
from ensemble_svc.plan.progress import Progress
from ensemble_svc.plan.race import Race

Report = Callable[[Progress], None]
"""What a slot calls at the end of each epoch."""
OnProgress = Callable[[Slot, Progress], None]
OnFailure = Callable[[Slot, str, bool], None]
"""Called with the slot, the reason in one line, and whether the slot will be tried again."""

DIED_OF_MEMORY = "the machine ran out of memory"
"""How the reason of a failed attempt begins when the operating system or Ray killed it for its memory."""
RAY_START_S = 6.0
"""Seconds until a slot's first step on Ray: Tune starts, a process starts, libraries load (two quiet cores)."""

P_contra = TypeVar("P_contra", contravariant=True)
P = TypeVar("P")


class Fit(Protocol[P_contra]):
    """Trains one slot: ``fit(payload, slot, report)``.

    Picklable and small (a module-level function, a ``functools.partial`` of one, or an instance of a
    frozen dataclass with ``__call__``); what is large goes into the payload. Its effect is the sealed
    members in the run folder, and calling it again for the same slot must be harmless: a slot may be
    started several times.

    A :class:`TrainError`, an ``OSError`` or the death of the process lets the slot be tried again.
    Any other :class:`EnsembleSvcError` (bad data, a model that does not fit) ends the whole run and is
    raised to the caller of the executor.
    """

    def __call__(self, payload: P_contra, slot: Slot, report: Report, /) -> None:
        """Train and seal the slot's members, reporting each epoch."""


Task = Callable[[P], Any]
"""What :meth:`Executor.workers` runs: picklable and small, called with the payload where slots run."""
Call = Callable[[Sequence[Task[P]]], list[Any]]
"""Runs tasks at the same time, each on one worker, and returns what they returned, in order."""


class Executor(Protocol):
    """Trains slots somewhere; which executor it is changes no member."""

    def resources(self) -> Resources:
        """What the place has, before any slot runs."""

    def workers(self, number: int, payload: P, *, cpus: int, gpus: float) -> AbstractContextManager[Call[P]]:
        """Processes on one machine, where and as slots would run; they end with the block.

        An executor whose slots run one at a time has one worker: this process.

        Args:
            number: workers at the same time, each with the given cores and GPUs.
            payload: handed to each task.

        Raises:
            ClusterError: the cluster was lost, or has no such room for now.
        """

    def racing(self, races: Sequence[Race]) -> Self:
        """This executor, stopping the trials of these searches as their results come.

        A trial hears of a verdict where it trains, in its run's journal, once ``report`` has returned.

        Raises:
            PlanError: its slots do not run beside each other.
        """

    def run(
        self,
        slots: Sequence[Slot],
        fit: Fit[P],
        payload: P,
        *,
        on_progress: OnProgress,
        on_failure: OnFailure,
    ) -> None:
        """Train every slot; return when each has finished or has failed for good.

        Args:
            slots: in the order in which they should start.
            fit: called as ``fit(payload, slot, report)`` wherever the slot runs.
            payload: handed once to the place, however many slots there are; NumPy arrays inside it are
                shared, not copied, and must be taken as read-only.
            on_progress: called in the caller's process, by one thread, for each ``report``.
            on_failure: called likewise for each attempt that failed; a slot that failed for good is
                reported with ``False`` and the others go on.

        Raises:
            PlanError: a slot larger than any node, before anything starts.
            EnsembleSvcError: as :class:`Fit` says.
            KeyboardInterrupt: SIGINT or SIGTERM; slots were told to stop and are no longer running.
        """


@dataclass(frozen=True)
class Node:
    """One machine."""

    name: str
    cpus: int
    gpus: float = 0.0
    memory_bytes: int | None = None
    """Main memory that slots may use; None where it is not known."""


@dataclass(frozen=True)
class Resources:
    """What an executor may use, in all and machine by machine."""

    cpus: int
    gpus: float = 0.0
    nodes: tuple[Node, ...] = ()
    """Empty: one machine that has all of it."""
    at_once: int | None = None
    """Slots that run at the same time at most; None: as many as the machines hold."""
    start_s: float = 0.0
    """Seconds until the first step of the first slots: processes that start, libraries that load."""

    @property
    def machines(self) -> tuple[Node, ...]:
        """At least one."""
        return self.nodes or (Node("this machine", self.cpus, self.gpus),)

    def holds(self, slot: Slot) -> bool:
        """Whether some machine, when idle, has room for the slot."""
        return any(slot.cpus <= node.cpus and slot.gpus <= node.gpus for node in self.machines)


def refuse_oversized(slots: Sequence[Slot], resources: Resources) -> None:
    """Check that every slot could run, so that none waits for ever.

    Raises:
        PlanError: a slot that no machine could ever hold, or a share of GPUs that cannot be given out.
    """
    for slot in slots:
        if slot.gpus > 1 and slot.gpus != int(slot.gpus):
            raise PlanError(
                f"slot {slot.pack.id} asks for {slot.gpus:g} GPUs; a share is below 1, more than one GPU is "
                f"a whole number. Set compute.gpus_per_member to {int(slot.gpus)} or {int(slot.gpus) + 1}."
            )
        if not resources.holds(slot):
            offers = ", ".join(f"{n.name}: {n.cpus} CPUs, {n.gpus:g} GPUs" for n in resources.machines[:8])
            raise PlanError(
                f"slot {slot.pack.id} asks for {slot.cpus} CPUs and {slot.gpus:g} GPUs on one machine, and "
                f"none has them ({offers}). Lower compute.cpus_per_slot or compute.gpus_per_member, or use a "
                "larger cluster."
            )
