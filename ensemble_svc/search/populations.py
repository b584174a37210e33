"""Populations whose members are in several packs: compared by the driver, each among the members of its structure.

The packs end where they are compared, as they do at a rung of halving; what is decided stands in the rung's event,
and all members go on, some of them from another's slice of whatever pack it was in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ensemble_svc.course import Ready
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.plan.structure import structure
from ensemble_svc.plan.turning import turned
from ensemble_svc.planning import bag_sizes
from ensemble_svc.spec.population import Generations
from ensemble_svc.store.turns import Taken, last_values, turns_in


@dataclass(frozen=True, eq=False)
class Populations:
    """Those of one search."""

    ready: Ready
    generations: Generations

    def of(self, members: Sequence[MemberSpec]) -> list[list[MemberSpec]]:
        """The members by population."""
        found: dict[str, list[MemberSpec]] = {}
        for member in members:
            found.setdefault(self._structures[member.digest], []).append(member)
        return list(found.values())

    def taken(
        self, members: Sequence[MemberSpec], losses: Mapping[int, float], epoch: int
    ) -> dict[str, dict[str, Any]]:
        """Who goes on from whose state after an epoch, by digest.

        Args:
            members: that have come there and train on.
            losses: of all of them, by index.
        """
        found = dict[str, dict[str, Any]]()
        for some in self.of(members):
            found |= self._taken(some, losses, epoch)
        return found

    def _taken(
        self, members: Sequence[MemberSpec], losses: Mapping[int, float], epoch: int
    ) -> dict[str, dict[str, Any]]:
        assert self.ready.job.search is not None
        by_index = {member.index: member for member in members}
        turns = turns_in(self.ready.run.journal, [member.digest for member in members])
        values = {m.index: {**m.varied, **last_values(turns[m.digest], epoch)} for m in members}
        own = {index: losses[index] for index in by_index}
        found = turned(self.ready.job.search, self.generations.pbt, by_index, values, own, epoch=epoch)
        told = {}
        for index, turn in found.items():
            source = by_index[turn.source]
            told[by_index[index].digest] = Taken(epoch, source.digest, source.id, turn.values).to_json()
        return told

    @cached_property
    def _structures(self) -> dict[str, str]:
        """What the members of a population have in common, by digest."""
        members = list(self.ready.plan.members)
        sizes = bag_sizes(members, self.ready.prepared)
        return {member.digest: structure(member, sizes[member.index]) for member in members}
