"""The exception tree: every fault a person can mend, told to that person.

Each class says which exit status the command line gives it. An exception that is not one of
these is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


class EnsembleSvcError(Exception):
    """A fault whose message is enough to mend it."""

    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a job file."""

    path: str
    """Dotted path of the key, ``training.optimizer.lr``; empty for the file as a whole."""
    message: str
    """What was found and what is allowed, one sentence or two."""
    line: int | None = None
    """1-based line in the file; None when the key is absent or came from ``--set``."""

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        key = f"{self.path}: " if self.path else ""
        return f"{where}{key}{self.message}"


class SpecError(EnsembleSvcError):
    """A job that cannot run as written; carries every fault found, not only the first."""

    def __init__(self, faults: Sequence[Fault] | str, source: str | None = None) -> None:
        self.faults = (Fault("", faults),) if isinstance(faults, str) else tuple(faults)
        self.source = source
        name = f"{source}: " if source else ""
        super().__init__("\n".join(f"{name}{fault}" for fault in self.faults))


class UnknownChoice(SpecError):
    """A name that the registry of its kind does not hold."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(unknown_choice(kind, name, known))


def unknown_choice(kind: str, name: object, known: Iterable[str]) -> str:
    """The sentence for a misspelt choice, with the nearest right one."""
    known = sorted(known)
    return f"{kind} '{name}' is unknown.{did_you_mean(str(name), known)} Known: {', '.join(known)}."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` with a leading space, or nothing when no name is near."""
    folded = {k.lower(): k for k in known}
    near = get_close_matches(name.lower(), folded, n=1)
    return f" Did you mean '{folded[near[0]]}'?" if near else ""


class DataError(EnsembleSvcError):
    """Data that cannot be read, or that no honest number could come from."""


class PlanError(EnsembleSvcError):
    """A job that the machine or cluster at hand cannot place."""


class StoreError(EnsembleSvcError):
    """A run folder that cannot be used."""


class CorruptArtifact(StoreError):
    """A file whose bytes are not those that were written."""


class RunInUse(StoreError):
    """Another process is writing this run."""


class OtherJob(StoreError):
    """The run folder holds a run of a different job, data or split."""


class TrainError(EnsembleSvcError):
    """Training that could not go on."""


class OutOfMemory(TrainError):
    """A device whose memory does not hold what was to train on it."""


class EnsembleError(EnsembleSvcError):
    """Predictions that cannot be combined."""


class ClusterError(EnsembleSvcError):
    """A cluster that cannot be reached, or that refused."""


class QuorumError(EnsembleSvcError):
    """The run ended with fewer members than it was told to accept."""

    exit_code = 1


def family(fault: EnsembleSvcError) -> type[EnsembleSvcError]:
    """The class of a fault whose constructor takes one message: what crosses a process border."""
    kinds = [cls for cls in type(fault).__mro__ if EnsembleSvcError in cls.__bases__]
    return kinds[0] if kinds else EnsembleSvcError
