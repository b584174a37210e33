"""What a slot tells while it trains: plain numbers and words that cross any process border."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

MemberStatus = Literal["pending", "training", "stopped", "done", "diverged", "failed"]


@dataclass(frozen=True)
class MemberProgress:
    """One member at the end of an epoch."""

    id: str
    status: MemberStatus
    """stopped: early stopping froze it while the rest of its pack goes on."""
    epoch: int
    """Epochs this member has trained, from 0."""
    train_loss: float | None = None
    """Mean over the rows of the last epoch; None before the first epoch ends."""
    metric_name: str = ""
    """Name of the validation metric; empty without a validation split."""
    metric: float | None = None


@dataclass(frozen=True)
class Progress:
    """A pack at the end of an epoch, with all of its members."""

    pack: str
    epoch: int
    """Epochs the pack has trained, from 0."""
    epochs: int
    """Epochs the pack was given."""
    members: tuple[MemberProgress, ...]
    seconds: float
    """Wall time since this attempt at the slot began."""
    note: str = ""
    """A sentence on something that happened to the pack; empty for a plain end of an epoch."""
    objective: float | None = None
    """What the pack's trial shows a scheduler after this epoch; None where nobody asks."""


def to_row(progress: Progress) -> dict[str, Any]:
    """The progress as a mapping for carriers that know numbers and strings alone.

    The numbers are those that a scheduler asks for. The members are in one text: a carrier that keeps statistics of
    each number, as Tune does, would take longer over a large pack than its training does.
    """
    row = {"epoch": progress.epoch, "objective": progress.objective}
    return row | {"progress": json.dumps(asdict(progress), separators=(",", ":"))}


def from_row(row: Mapping[str, Any]) -> Progress:
    """Inverse of :func:`to_row`; keys of the carrier's own are ignored."""
    facts = json.loads(row["progress"])
    members = tuple(MemberProgress(**member) for member in facts.pop("members"))
    return Progress(members=members, **facts)
