"""A start of some members of a slot: the first one, or one anew at half the rate.

``training.on_sick: restart`` trains a sick member again with the same seed and half the learning rate, at most
``MOST_RESTARTS`` times. To training that member is one whose recipe says so: it has the initial weights and the
order of rows that its index and the job's seed give, its commits lie under a pack of its own, and it is sealed
under the name it always had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ensemble_svc.plan.executor import Report
from ensemble_svc.plan.plan import MemberSpec, Pack, Slot
from ensemble_svc.plan.progress import Progress
from ensemble_svc.spec.optimizers import Muon
from ensemble_svc.store.members import sealed

MOST_RESTARTS = 2
SLOWER = 0.5
"""What each start anew multiplies the rate by."""


@dataclass(frozen=True)
class Attempt:
    """Members that train at once, for the ``number``-th time anew."""

    slot: Slot
    members: tuple[MemberSpec, ...]
    """As the plan has them."""
    number: int = 0

    @property
    def rate_factor(self) -> float:
        """Of the learning rate that the job gives."""
        return SLOWER**self.number

    @cached_property
    def pack(self) -> Pack:
        """The members as they train."""
        if not self.number:
            return self.slot.pack
        return Pack(members=tuple(slowed(member, self.rate_factor) for member in self.members))

    def again(self, positions: Sequence[int]) -> Attempt:
        """The next start, of the members at these positions."""
        return replace(self, members=tuple(self.members[k] for k in positions), number=self.number + 1)

    def told(self, report: Report) -> Report:
        """``report`` for this start, in the names of the slot and of the plan's members."""
        names = {own.id: member.id for own, member in zip(self.pack.members, self.members, strict=True)}

        def tell(progress: Progress) -> None:
            members = tuple(replace(member, id=names[member.id]) for member in progress.members)
            report(replace(progress, pack=self.slot.pack.id, members=members))

        return tell if self.number else report


def slowed(member: MemberSpec, factor: float) -> MemberSpec:
    """The member with its learning rates times ``factor`` and all else as it was, its seed too."""
    rule = member.training.optimizer
    rates = {"lr": rule.rate * factor}
    if isinstance(rule, Muon):
        rates["adamw_lr"] = rule.adamw_lr * factor
    slower = rule.model_copy(update=rates)
    own = {name: getattr(member, name) for name in MemberSpec.model_fields}
    return MemberSpec(**own | {"training": member.training.model_copy(update={"optimizer": slower})})


def attempts_of(run: Path, slot: Slot) -> list[Attempt]:
    """Every start that a slot's sealed members took, the last one first."""
    seals = sealed(run, [member.digest for member in slot.pack.members])
    taken = {
        m.digest: seals[m.digest].get("restarts", 0) if m.digest in seals else 0 for m in slot.pack.members
    }
    found = [Attempt(slot, slot.pack.members)]
    for number in range(1, MOST_RESTARTS + 1):
        again = [k for k, member in enumerate(found[-1].members) if taken[member.digest] >= number]
        if again:
            found.append(found[-1].again(again))
    return found[::-1]
