"""What a slot tells while it trains: plain numbers and words that cross any process border."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
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


_PACK = ("pack", "epoch", "epochs", "seconds", "note", "objective")
_MEMBER = tuple(field.name for field in fields(MemberProgress))


def to_row(progress: Progress) -> dict[str, Any]:
    """The progress as one flat mapping of numbers and strings, for carriers that know no others."""
    row: dict[str, Any] = {name: getattr(progress, name) for name in _PACK}
    row["num_members"] = len(progress.members)
    for position, member in enumerate(progress.members):
        row |= {f"member/{position}/{name}": getattr(member, name) for name in _MEMBER}
    return row


def from_row(row: Mapping[str, Any]) -> Progress:
    """Inverse of :func:`to_row`; keys of the carrier's own are ignored."""
    return Progress(members=tuple(_members(row)), **{name: row[name] for name in _PACK})


def _members(row: Mapping[str, Any]) -> Iterator[MemberProgress]:
    for position in range(row["num_members"]):
        yield MemberProgress(**{name: row[f"member/{position}/{name}"] for name in _MEMBER})
