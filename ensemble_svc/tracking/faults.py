"""What can keep a tracker from being told; no run is lost to it."""

from __future__ import annotations

from ensemble_svc.errors import EnsembleSvcError
from ensemble_svc.spec.trackers import Mlflow, Tracker


def faults_of(tracker: Tracker) -> tuple[type[Exception], ...]:
    """What keeps a tracker from being told, its own errors among them; loads its package."""
    common = (OSError, RuntimeError, ValueError, EnsembleSvcError)
    if isinstance(tracker, Mlflow):
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        return (*common, MlflowException, SQLAlchemyError)
    from wandb.errors import Error

    return (*common, Error)


def shortly(fault: Exception) -> str:
    """Its kind and its first line."""
    first = next(iter(str(fault).splitlines()), "")
    return f"{type(fault).__name__}: {first[:300]}"
