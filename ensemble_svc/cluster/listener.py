"""From Tune's events to ours: progress, failures with their root cause, and the end of a run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback

from ensemble_svc import errors
from ensemble_svc.cluster.interrupt import Interrupts
from ensemble_svc.cluster.worker import pack_of
from ensemble_svc.plan.executor import DIED_OF_MEMORY, OnFailure, OnProgress
from ensemble_svc.plan.plan import Slot
from ensemble_svc.plan.progress import from_row

OUT_OF_MEMORY = f"{DIED_OF_MEMORY}; lower training.batch_size or compute.pack"
DEATHS = (
    ("memory monitor", OUT_OF_MEMORY),
    ("running low on memory", OUT_OF_MEMORY),
    ("node has died", "its machine was lost"),
    ("node failure", "its machine was lost"),
    ("unavailable", "its machine could not be reached"),
)
"""What Ray writes about a dead worker, and what it means."""
KILLED = "its process died (killed from outside, out of memory, or crashed in native code)"


class Silence(TrialProgressCallback):
    """In the place of Tune's own, which prints a line of each trial that ends, however silent it is told to be."""

    def on_trial_result(self, *args: Any, **info: Any) -> None:
        """Nothing."""

    on_trial_error = on_trial_complete = on_trial_result


class Halted(Exception):
    """A signal asked for the end."""


class Listener(tune.Callback):
    """Collects Tune's events and hands them on between two steps of its loop.

    Handing them on there, and not where Tune raises them, lets a fault in the caller's own functions
    end the run instead of being taken for a fault of the trial.
    """

    def __init__(
        self,
        by_pack: Mapping[str, Slot],
        on_progress: OnProgress,
        on_failure: OnFailure,
        interrupts: Interrupts,
    ) -> None:
        self.halted: BaseException | None = None
        self._by_pack, self._interrupts = by_pack, interrupts
        self._on_progress, self._on_failure = on_progress, on_failure
        self._waiting: deque[Callable[[], None]] = deque()
        self._reasons: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks into a state that is never read, and terminals do not pickle."""
        return {}

    def fault(self, fault: Exception) -> None:
        """End the run with this, at the end of Tune's step."""
        self._waiting.append(partial(_throw, fault))

    def on_trial_result(
        self, iteration: int, trials: Sequence[Any], trial: Any, result: Mapping[str, Any], **_: Any
    ) -> None:
        """A row that the worker reported."""
        slot = self._by_pack[pack_of(trial.config)]
        match result.get("event"):
            case "progress":
                self._waiting.append(partial(self._on_progress, slot, from_row(result)))
            case "failure":
                self._reasons[slot.pack.id] = result["reason"]
            case "refusal":
                kind = getattr(errors, result["kind"], errors.TrainError)
                self.fault(kind(result["reason"]))
            case _:
                pass

    def on_trial_recover(self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any) -> None:
        """An attempt failed and Tune will start another."""
        self._fail(trial, True)

    def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any) -> None:
        """The last attempt failed."""
        self._fail(trial, False)

    def on_step_end(self, iteration: int, trials: Sequence[Any], **_: Any) -> None:
        """Hand on what has happened; on a signal or a fault, kill the workers and leave Tune's loop."""
        try:
            if self._interrupts.signal:
                raise Halted
            while self._waiting:
                self._waiting.popleft()()
        except BaseException as fault:
            self.halted = fault
            _kill(trials)
            raise

    def on_experiment_end(self, trials: Sequence[Any], **_: Any) -> None:
        """Hand on what the last step brought."""
        if self.halted is None:
            self.on_step_end(0, trials)

    def _fail(self, trial: Any, will_retry: bool) -> None:
        slot = self._by_pack[pack_of(trial.config)]
        why = self._reasons.pop(slot.pack.id, None) or _why_died(trial)
        self._waiting.append(partial(self._on_failure, slot, why, will_retry))


def _throw(fault: Exception) -> None:
    raise fault


def _why_died(trial: Any) -> str:
    """The reason of a death that the worker could not report itself, from Ray's last words on it."""
    if not trial.error_file:
        return KILLED
    words = Path(trial.error_file).read_text(errors="replace").rpartition("Failure # ")[2].lower()
    return next((meaning for sign, meaning in DEATHS if sign in words), KILLED)


def _kill(trials: Sequence[Any]) -> None:
    """End the workers now; waits until Ray has taken note, so that none writes on."""
    actors = [trial.temporary_state.ray_actor for trial in trials]
    alive = [actor for actor in actors if actor is not None]
    for actor in alive:
        ray.kill(actor)
    for actor in alive:
        try:
            ray.get(actor.__ray_ready__.remote(), timeout=5)
        except ray.exceptions.RayError:
            continue
