"""What a run's search has used of its budget, and the sign that it is used up.

The driver notes what is used in the journal, so that a later start counts it too. The sign is a file in the run folder,
which slots can see wherever they train.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble_svc.plan.plan import Slot
from ensemble_svc.spec.budgets import BudgetSpec
from ensemble_svc.store.atomic import write_atomic
from ensemble_svc.store.journal import Journal

SIGN = "spent.txt"
EVENT = "used"
NOT_STARTED = "not started (budget)"
"""The reason of a member that waits for a larger budget."""


@dataclass(frozen=True)
class Used:
    """What was used by all starts of a run."""

    seconds: float = 0.0
    """Wall time in which slots trained."""
    device_seconds: float = 0.0

    def __add__(self, other: Used) -> Used:
        return Used(self.seconds + other.seconds, self.device_seconds + other.device_seconds)

    def beyond(self, budget: BudgetSpec) -> str:
        """What of the budget is used up; empty while nothing is."""
        for name, used in (("hours", self.seconds / 3600), ("device_hours", self.device_seconds / 3600)):
            limit = getattr(budget, name)
            if limit is not None and used >= limit:
                return f"{used:.3g} of {limit:g} {name} used"
        return ""


def used_in(journal: Journal) -> Used:
    """What the journal says was used: the last word of each executor's run."""
    last: dict[str, Used] = {}
    for event in journal.of_kind(EVENT):
        last[event["meter"]] = Used(event["seconds"], event["device_seconds"])
    return sum(last.values(), Used())


def is_spent(run: Path) -> bool:
    """Whether the sign is up."""
    return (run / SIGN).exists()


def has_begun(run: Path, slot: Slot) -> bool:
    """Whether some member of a slot has ever begun to train."""
    events = Journal(run / "journal.jsonl").of_kind("start")
    begun = {member for event in events for member in event["members"]}
    return any(member.id in begun for member in slot.pack.members)


def raise_sign(run: Path, words: str) -> None:
    """Tell every slot that the budget is used up."""
    if not is_spent(run):
        write_atomic(run / SIGN, f"{words}\n".encode())


def settle_sign(run: Path, budget: BudgetSpec | None) -> None:
    """Put the sign up or down by what was used in earlier starts and the budget of today."""
    words = used_in(Journal(run / "journal.jsonl")).beyond(budget) if budget else ""
    if words:
        raise_sign(run, words)
    else:
        (run / SIGN).unlink(missing_ok=True)


def account(run: Path, budget: BudgetSpec, num_trials: int) -> dict[str, Any]:
    """The budget beside what was used of it, by what it is of; only what it bounds."""
    used = used_in(Journal(run / "journal.jsonl"))
    found = {
        "hours": used.seconds / 3600,
        "device_hours": used.device_seconds / 3600,
        "trials": num_trials,
    }
    limits = {name: getattr(budget, name) for name in found}
    return {
        name: {"used": found[name], "limit": limit} for name, limit in limits.items() if limit is not None
    } | {"spent": is_spent(run)}
