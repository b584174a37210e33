"""What the journal says of a population that is spread over several packs: who went on from whose state, and how.

It stands in the event of the rung that decided it, ``taken`` by digest. What stands there before an event ``anew``
that names a member is over.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ensemble_svc.registry import frozen
from ensemble_svc.store.journal import Journal

ANEW = "anew"
"""Kind of the events that name members of a population which begin again."""


@dataclass(frozen=True)
class Taken:
    """One member's turn."""

    epoch: int
    source: str
    """Digest of the member whose state it went on from."""
    name: str
    """The other's id."""
    values: Mapping[str, Any]
    """By which it went on, by dotted path."""

    def to_json(self) -> dict[str, Any]:
        """As the rung's event has it."""
        return {"from": self.name, "source": self.source, "values": self.values}


def turns_in(journal: Journal, digests: Collection[str]) -> dict[str, dict[int, Taken]]:
    """The turns of some members, by digest and epoch."""
    wanted = set(digests)
    found: dict[str, dict[int, Taken]] = {digest: {} for digest in digests}
    for event in journal.of_kind("rung", ANEW):
        if event["event"] == ANEW:
            found |= {digest: {} for digest in wanted.intersection(event["members"])}
            continue
        told, epoch = event.get("taken", {}), event["epoch"]
        for digest in wanted.intersection(told):
            own = told[digest]
            found[digest][epoch] = Taken(epoch, own["source"], own["from"], frozen(own["values"]))
    return found


def last_values(turns: Mapping[int, Taken], epoch: int) -> Mapping[str, Any]:
    """What a member went on by after its last turn up to an epoch; nothing where it had none."""
    latest = max((at for at in turns if at <= epoch), default=None)
    return {} if latest is None else turns[latest].values
