"""The members that a journal's slots hold, in few words, for looking at very many of them.

To read ten thousand specifications and work out their digests takes seconds; a seal holds both, so only members
that are not sealed as they are placed are read whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ensemble_svc.plan.plan import SINGLE, MemberSpec, member_id, pack_id
from ensemble_svc.store.journal import Event


@dataclass(frozen=True)
class Placed:
    """A member in a slot."""

    index: int
    digest: str
    pack: str
    """Of the slot."""
    epochs: int
    """That it is to train."""

    @property
    def id(self) -> str:
        """Name of its folder."""
        return member_id(self.index, self.digest)

    @property
    def is_single(self) -> bool:
        """Whether it is the single model that the ensemble is measured against."""
        return self.index == SINGLE


def placed(plans: Iterable[Event], seals: Mapping[str, Event]) -> Iterator[Placed]:
    """The members of all slots of the journal's plans, in order; one that was placed again comes again.

    Args:
        seals: by digest, as ``members.sealed`` has them.
    """
    known = {seal["index"]: seal for seal in seals.values()}
    for text in (text for event in plans for text in event["slots"]):
        members = json.loads(text)["pack"]["members"]
        digests = [_digest(member, known.get(member["index"])) for member in members]
        pack = pack_id(members[0]["index"], digests)
        for member, digest in zip(members, digests, strict=True):
            yield Placed(member["index"], digest, pack, member["training"]["epochs"])


def _digest(member: Mapping[str, Any], seal: Event | None) -> str:
    """That of the seal where it is of the very same specification."""
    if seal is not None and seal["spec"] == member:
        return str(seal["digest"])
    return MemberSpec.from_json(json.dumps(member)).digest
