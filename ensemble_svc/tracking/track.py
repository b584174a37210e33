"""The end of a run handed to its job's tracker."""

from __future__ import annotations

from ensemble_svc.spec.trackers import Mlflow, Tracker, Wandb
from ensemble_svc.store.run import Run
from ensemble_svc.tracking.book import book_of
from ensemble_svc.tracking.faults import faults_of, shortly
from ensemble_svc.tracking.to_mlflow import write_mlflow
from ensemble_svc.tracking.to_wandb import write_wandb


def track(run: Run, tracker: Tracker) -> str:
    """Bring the tracker up to date with a run; returns what kept it from that, or nothing.

    The run is whole without it, and the same command again tries again.
    """
    try:
        match tracker:
            case Mlflow():
                write_mlflow(book_of(run), tracker, run.path)
            case Wandb():
                write_wandb(book_of(run), tracker, run.path)
            case _:
                pass
    except faults_of(tracker) as fault:
        return (
            f"{tracker.package} was not brought up to date ({shortly(fault)}); the same command tries again"
        )
    return ""
