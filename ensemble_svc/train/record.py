"""What a member's ``health.json`` and its entry of the manifest say of its training.

Shapes: B rows of a member's bag.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ensemble_svc.data.dataset import Array
from ensemble_svc.nn.distilled import guessing_taught, on_scale
from ensemble_svc.nn.heads import resolve_loss
from ensemble_svc.nn.member import TASK_SCALE, scales
from ensemble_svc.nn.tasks import Heads
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.spec.losses import GaussianNll
from ensemble_svc.spec.regularizers import CutMix, Mixup
from ensemble_svc.train.attempt import Attempt
from ensemble_svc.train.ledger import Entry, Ledger
from ensemble_svc.train.module import SlotModule
from ensemble_svc.vitals.course import Course, Finding, findings_of
from ensemble_svc.vitals.guess import guessing
from ensemble_svc.vitals.sample import Sample, spots_of
from ensemble_svc.vitals.sick import Verdict, sickness


@dataclass(frozen=True)
class Record:
    """One member of a start, as its training ended."""

    attempt: Attempt
    module: SlotModule
    ledger: Ledger
    sick: Verdict | None
    rows: Array
    """Its training rows."""
    position: int
    """In the pack."""

    @property
    def entry(self) -> Entry:
        """Its page of the ledger."""
        return self.ledger.entries[self.position]

    def health(self) -> dict[str, Any]:
        """The body of ``health.json``."""
        spots = spots_of(self.module.net.body)
        layers = [{"name": spot.name, "activation": spot.kind} for spot in spots]
        return self.facts() | {"layers": layers, "samples": self.entry.vitals}

    def facts(self) -> dict[str, Any]:
        """What the manifest says of it."""
        status, reason = self._ending()
        return {
            "status": status,
            "reason": reason,
            "sick": self.sick.reason if self.sick else None,
            "findings": [finding.to_json() for finding in self._findings],
            "restarts": self.attempt.number,
            "rate_factor": self.attempt.rate_factor,
        } | ({"lineage": self.entry.turns} if self.entry.turns else {})

    def _ending(self) -> tuple[str, str]:
        if self.entry.status == "diverged":
            return "diverged", self.entry.reason
        if self.sick and self.attempt.members[self.position].training.on_sick == "exclude":
            return "excluded", self.sick.reason
        return "done", self.entry.reason

    @cached_property
    def _findings(self) -> list[Finding]:
        member = self.attempt.pack.members[self.position]
        training = member.training
        found = Course(
            history=self.entry.history,
            samples=[Sample.from_json(row) for row in self.entry.vitals],
            sick=self.sick,
            guess=_guess(self.module, self.ledger, self.rows, self.position),
            weights=[spot.num_weights for spot in spots_of(self.module.net.body)],
            stops_early=training.early_stopping is not None,
            may_stop=not (member.snapshots or member.num_draws),
            halves=training.on_sick == "restart",
        )
        return findings_of(found)


def verdicts(
    attempt: Attempt, module: SlotModule, ledger: Ledger, rows: Sequence[Array]
) -> list[Verdict | None]:
    """What makes each member of a start sick, where something does."""
    return [
        sickness(
            entry.history,
            diverged=entry.reason if entry.status == "diverged" else "",
            kept=entry.best_epoch,
            guess=_guess(module, ledger, own, k),
            classes=member.task == "classification",
            unmixed=_unmixed(module, ledger, own, k) if _mixes_numbers(member) else None,
        )
        for k, (member, entry, own) in enumerate(zip(attempt.members, ledger.entries, rows, strict=True))
    ]


def _mixes_numbers(member: MemberSpec) -> bool:
    """Whether its training loss is of mixed targets: they spread less, so that any constant seems to beat guessing."""
    rules = member.training.regularizers
    return member.task == "regression" and any(isinstance(rule, Mixup | CutMix) for rule in rules)


def _unmixed(module: SlotModule, ledger: Ledger, rows: Array, position: int) -> float:
    """The loss of the kept weights on the member's own rows as they are, on the scale of ``_guess``."""
    rows_B = torch.from_numpy(rows).to(module.recipe.device)
    one = {name: value[position : position + 1] for name, value in ledger.kept.items()}
    scale_K = scales(one)
    found = module.predict_rows(one, rows_B, scale_K=scale_K)
    scale_T = scale_K["target_scale"][0]
    error_BT = (found["mean"][0] - module.data.targets(rows_B)) / scale_T
    if not isinstance(module.recipe.loss, GaussianNll):
        return float(error_BT.double().square().sum(1).mean())
    log_variance_BT = (found["log_variance"][0] - 2 * scale_T.log()).double()
    nll_BT = 0.5 * (math.log(2 * math.pi) + log_variance_BT + error_BT.square() * (-log_variance_BT).exp())
    return float(nll_BT.sum(1).mean())


def _guess(module: SlotModule, ledger: Ledger, rows: Array, position: int) -> float:
    """The loss of guessing on the member's own rows, by its own loss.

    Of several tasks whose weights are learned it is by those of the kept epoch: they alone, without anything
    learned of the rows, bring the loss down.
    """
    rows_B, lesson = torch.from_numpy(rows).to(module.recipe.device), module.data.dataset.lesson
    if lesson is not None and module.data.lesson_N is not None:
        scale_K = {name: value[position : position + 1] for name, value in module.scale_K.items()}
        says_B = on_scale(module.data.lesson_N[rows_B].unsqueeze(0), scale_K)[0]
        assert not isinstance(module.recipe.loss, Heads)
        return guessing_taught(module.recipe.loss, says_B, lesson.temperature)
    y = module.data.targets(rows_B)
    if module.scale_K:
        y = (y - module.scale_K["target_mean"][position]) / module.scale_K["target_scale"][position]
    answer, member = module.recipe.loss, ledger.members[position]
    if not isinstance(answer, Heads):
        assert member.task != "multitask"
        return guessing(resolve_loss(member.task, member.training.loss), y)
    each = [y.new_tensor([[guessing(head.loss, head.target(y))]]) for head in answer.taught]
    learned_K = ledger.kept.get(TASK_SCALE)
    return float(answer.total(each, None if learned_K is None else learned_K[position : position + 1]))
