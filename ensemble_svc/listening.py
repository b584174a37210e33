"""What a caller may want to hear while runs go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ensemble_svc.plan.plan import Plan, Slot
from ensemble_svc.plan.progress import Progress
from ensemble_svc.store.run import Run


@dataclass
class Listener:
    """What the caller wants to hear while runs go on; by default nothing."""

    measuring: Callable[[float], None] = lambda seconds: None
    """A few steps will be timed, for so many seconds at most."""
    found: Callable[[float], None] = lambda rate: None
    """A learning rate was found for a job that says ``lr: auto``."""
    planned: Callable[[Plan, Sequence[str]], None] = lambda plan, warnings: None
    """The plan of what is left to train, of all runs, and warnings about the data; once for each round of a
    search that learns, and for each rung at which its packs wait for each other."""
    progress: Callable[[Slot, Progress], None] = lambda slot, progress: None
    failure: Callable[[Slot, str, bool], None] = lambda slot, reason, again: None
    finished: Callable[[Run], None] = lambda run: None
    """A run has its numbers and its report; others may still train."""
    noted: Callable[[str], None] = lambda words: None
    """Something that the run does without, in a sentence."""
