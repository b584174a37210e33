"""The door of this room: a finished run handed to its job's tracker."""

from __future__ import annotations

from ensemble_svc.errors import EnsembleSvcError
from ensemble_svc.spec.trackers import Mlflow, Tracker, Wandb
from ensemble_svc.store.run import Run
from ensemble_svc.tracking.book import book_of
from ensemble_svc.tracking.to_mlflow import write_mlflow
from ensemble_svc.tracking.to_wandb import write_wandb


def track(run: Run, tracker: Tracker) -> str:
    """Bring the tracker up to date with a run; returns what kept it from that, or nothing.

    The run is whole without it, and the same command again tries again.
    """
    if not tracker.package:
        return ""
    try:
        _write(run, tracker)
    except (OSError, RuntimeError, ValueError, EnsembleSvcError, _their_fault(tracker)) as fault:
        first = next(iter(str(fault).splitlines()), "")
        return f"{tracker.package} was not brought up to date ({type(fault).__name__}: {first[:300]})"
    return ""


def _write(run: Run, tracker: Tracker) -> None:
    match tracker:
        case Mlflow():
            write_mlflow(book_of(run), tracker, run.path)
        case Wandb():
            write_wandb(book_of(run), tracker, run.path)
        case _:
            pass


def _their_fault(tracker: Tracker) -> type[Exception]:
    """What a tracker raises of its own."""
    if isinstance(tracker, Mlflow):
        from mlflow.exceptions import MlflowException

        return MlflowException
    from wandb.errors import Error

    return Error
