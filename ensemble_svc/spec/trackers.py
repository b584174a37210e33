"""Where else a run's numbers are kept while it goes on: experiment trackers, which are optional packages."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ensemble_svc.registry import Choice, Registry, Shorthand
from ensemble_svc.spec.fields import RunName

Uri = Annotated[str, Field(min_length=1, max_length=2000)]


class Tracker(Choice):
    """A tracker."""

    package: ClassVar[str] = ""
    """What has to be installed, also the name of the extra that installs it; empty for nothing."""


class NoTracker(Tracker):
    """The run folder alone."""

    name: Literal["none"] = "none"


class Mlflow(Tracker):
    """MLflow: a run for the ensemble, and under it a run for each member with its curves.

    Told while members train, by a process of its own that training never waits for; the same command again goes on
    with the same runs and adds nothing twice. A server's user and password come from MLflow's own environment
    variables and belong in no job file.
    """

    package: ClassVar[str] = "mlflow"
    name: Literal["mlflow"] = "mlflow"
    uri: Uri | None = None
    """The tracking store or server; ``mlflow.db``, an SQLite file in ``compute.storage``, where it is left out."""
    experiment: RunName | None = None
    """Name of the experiment; the job's where it is left out."""


class Wandb(Tracker):
    """Weights & Biases, offline: a run for each member in one group, in the run folder, for ``wandb sync``.

    The files of up to 64 members grow while these train; all are written whole when the run has ended.
    """

    package: ClassVar[str] = "wandb"
    name: Literal["wandb"] = "wandb"
    project: RunName | None = None
    """Name of the project; the job's where it is left out."""


AnyTracker = Annotated[NoTracker | Mlflow | Wandb, Field(discriminator="name"), Shorthand()]
TRACKERS: Registry[Choice] = Registry("tracker", AnyTracker)
