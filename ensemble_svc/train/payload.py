"""What every slot of a run gets besides its members: the same for all, handed over once."""

from __future__ import annotations

from dataclasses import dataclass

from ensemble_svc.data.dataset import Dataset, InputSchema
from ensemble_svc.data.split import Split
from ensemble_svc.spec.search import SearchSpec


@dataclass(frozen=True)
class Payload:
    """Data, split and the place where results go."""

    dataset: Dataset
    split: Split
    schema: InputSchema
    run: str
    """The run folder, reachable from every node under this name."""
    commit_every_s: float
    """Seconds between commits of the training state; 0 commits every epoch."""
    health: bool = True
    """Whether the members' layers are looked at while they train."""
    search: SearchSpec | None = None
    """The search whose trials the members are, for what it stops."""
    tensorboard: bool = False
    """Whether the members' event files are written."""
