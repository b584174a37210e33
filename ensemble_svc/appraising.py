"""Every number of a split: the ensemble, its members, gains, size curve, reliability, coverage.

Shapes: K candidates (every member that finished), N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ensemble_svc.aggregate.decision import Decision, Prediction, equal
from ensemble_svc.aggregate.subsets import mixtures
from ensemble_svc.evaluate.contrast import contrast
from ensemble_svc.evaluate.curve import size_curve
from ensemble_svc.evaluate.decompose import decompose
from ensemble_svc.evaluate.metrics import METRICS, Names
from ensemble_svc.evaluate.pieces import pieces, summarize_in_pieces
from ensemble_svc.evaluate.portrait import each_class
from ensemble_svc.evaluate.prospect import prospect
from ensemble_svc.evaluate.reliability import reliability
from ensemble_svc.evaluate.summary import summarize
from ensemble_svc.nn.tasks import part_of
from ensemble_svc.scoring import asked_names, coverage, diversity, measured_by, pick_curve, scored
from ensemble_svc.spec.averages import Swag
from ensemble_svc.spec.job import EvaluateSpec, JobSpec
from ensemble_svc.spec.randomness import derive_seed
from ensemble_svc.spec.tasks import Task
from ensemble_svc.splits import chosen_of, targets_of
from ensemble_svc.store.mapped import let_go

HELD_NUMBERS = 1 << 26
"""Numbers that the members say of a split, beyond which its rows are measured a piece at a time."""
STATISTICS = 20
"""Numbers that measuring all rows at once keeps of each member and row, about."""


class Alone(NamedTuple):
    """One network beside the ensemble."""

    decision: Decision
    """How it is calibrated."""
    said: Mapping[str, Tensor]
    """Its predictions, [1, N, …]."""


def measure(
    job: JobSpec,
    decision: Decision,
    ids: Sequence[str],
    members: Mapping[str, Tensor],
    target: Tensor,
    *,
    best: int | None,
    single: Alone | None = None,
) -> dict[str, Any]:
    """Every number of one split: ensemble, members, gains, size curve, reliability, coverage.

    Of several tasks those of the first, and under ``tasks`` those of each by its name.

    Args:
        ids: of the K members in ``members``; the decision's are among them.
        target: of several tasks a column for each.
        best: position of the member that was best on validation; None on the rows that chose it, and
            without a validation split.
        single: what a single model of the ensemble's cost says of the rows.
    """
    if job.task != "multitask":
        return _Asked(job, job.task, decision, ids, best, single).measured(members, target)
    each = {
        name: _Asked(
            job,
            task.kind,
            decision.of(name),
            ids,
            best,
            single and Alone(single.decision.of(name), part_of(single.said, name)),
        ).measured(part_of(members, name), own)
        for (name, task), own in zip(job.tasks.items(), targets_of(job, target), strict=True)
    }
    first = next(iter(each))
    return {**each[first], "task": first, "tasks": each}


@dataclass(frozen=True)
class _Asked:
    """What is to be measured of one task, as ``measure`` says."""

    job: JobSpec
    task: Task
    decision: Decision
    ids: Sequence[str]
    best: int | None
    single: Alone | None

    @property
    def spec(self) -> EvaluateSpec:
        """How it is measured."""
        return measured_by(self.job, self.task)

    @property
    def seed(self) -> int:
        """Of the intervals."""
        return derive_seed(self.job.seed, -1, "bootstrap")

    @property
    def rivals(self) -> list[str]:
        """What the ensemble is measured against besides its members."""
        plain = self.decision.is_plain and len(self.decision.members) == len(self.ids)
        return [*([] if plain else ["equal_mixture"]), *([] if self.single is None else ["single"])]

    def measured(self, members: Mapping[str, Tensor], target: Tensor) -> dict[str, Any]:
        """The numbers of the task."""
        if _numbers(members, STATISTICS) > HELD_NUMBERS:
            return self._in_pieces(members, target)
        rivals = self._said(members, target, slice(None))
        ensemble = rivals.pop("ensemble")
        summary = summarize(
            self.task,
            members,
            ensemble,
            target,
            spec=self.spec,
            best=self.best,
            seed=self.seed,
            rivals=rivals,
        )
        extra = of_all_rows(self.job, self.task, self.decision, self.ids, members, target)
        return {**summary, **extra, **_of_classes(self.task, ensemble, target, self.spec.bins)}

    def _in_pieces(self, members: Mapping[str, Tensor], target: Tensor) -> dict[str, Any]:
        """The same a piece of the rows at a time; what takes all rows at once is of some, as ``sampled`` says."""

        def say(some: Mapping[str, Tensor], rows: slice) -> list[Prediction]:
            let_go()  # of the rows before
            said = self._said(some, target[rows], rows)
            return [said[name] for name in (*self.rivals, "ensemble")]

        summary, ensemble = summarize_in_pieces(
            self.task,
            members,
            say,
            target,
            spec=self.spec,
            best=self.best,
            seed=self.seed,
            rivals=self.rivals,
        )
        step = -(-_numbers(members, 4) // HELD_NUMBERS)
        few = {key: stack[:, ::step].contiguous() for key, stack in members.items()}
        let_go()
        told = of_all_rows if step == 1 else of_some_rows
        extra = told(self.job, self.task, self.decision, self.ids, few, target[::step])
        return {**summary, **extra, **_of_classes(self.task, ensemble, target, self.spec.bins)}

    def _said(self, members: Mapping[str, Tensor], target: Tensor, rows: slice) -> dict[str, Prediction]:
        """What the ensemble and its rivals say of the rows that are given, which lie there in the split."""
        names = asked_names(self.spec)
        said = {"ensemble": scored(self.decision, chosen_of(self.decision, self.ids, members), target, names)}
        if "equal_mixture" in self.rivals:
            said["equal_mixture"] = scored(equal(self.ids), members, target, names)
        if self.single is not None:
            alone = {key: stack[:, rows] for key, stack in self.single.said.items()}
            said["single"] = scored(self.single.decision, alone, target, names)
        return said


def _numbers(members: Mapping[str, Tensor], least: int) -> int:
    """That the members say, and at least so many of each member and row."""
    first = next(iter(members.values()))
    return max(sum(stack.numel() for stack in members.values()), least * first[..., 0].numel())


def _of_classes(task: Task, ensemble: Prediction, target: Tensor, bins: int) -> dict[str, Any]:
    """What is told of class probabilities alone."""
    if task != "classification":
        return {}
    log_probs_NC = ensemble["log_probs"]
    return {
        "reliability": reliability(log_probs_NC, target, bins=bins),
        "classes": each_class(log_probs_NC, target),
    }


def of_all_rows(
    job: JobSpec,
    task: Task,
    decision: Decision,
    ids: Sequence[str],
    members: Mapping[str, Tensor],
    target: Tensor,
) -> dict[str, Any]:
    """What takes the rows all at once: diversity, coverage, size curve and forecast, or a search's curve of picks.

    Args:
        members: as ``measure``, of one task.
    """
    spec = measured_by(job, task)
    seed = derive_seed(job.seed, -1, "bootstrap")
    chosen = chosen_of(decision, ids, members)
    names = asked_names(spec)
    extra: dict[str, Any] = {}
    usual: Names = tuple(name for name in names if METRICS[name].usual) or "auto"
    if job.search is not None:  # trials are no draws of one recipe: subsets of them foretell nothing
        extra["searched"] = True
        extra["pick_curve"] = pick_curve(task, decision, chosen, target, usual, spec.bins)
    else:
        extra["size_curve"] = size_curve(
            task, members, target, mixtures, names=usual, bins=spec.bins, seed=seed
        )
        if (more := prospect(task, members, target, mixtures, seed=seed)) is not None:
            extra["forecast"] = more
    if len(ids) > 1 and _are_draws(job):
        extra["decomposition"] = {**decompose(task, members, target), "members": len(ids)}
    if len(decision.members) > 1:
        extra["diversity"] = diversity(task, decision, chosen, target)
    if decision.conformal is not None:
        extra["coverage"] = coverage(decision, scored(decision, chosen, target, names), target)
    if "decomposition" in extra and job.ensemble.share_init:
        extra["decomposition"]["one_start"] = True
    return extra


def of_some_rows(
    job: JobSpec,
    task: Task,
    decision: Decision,
    ids: Sequence[str],
    members: Mapping[str, Tensor],
    target: Tensor,
) -> dict[str, Any]:
    """The same of a sample of the rows, with ``sampled``: how many, and what is told of them alone."""
    found = of_all_rows(job, task, decision, ids, members, target)
    what = [name for name in found if name != "searched"]
    return found | {"sampled": {"rows": len(target), "what": what}}


def _are_draws(job: JobSpec) -> bool:
    """Whether the candidates are draws of one training: one recipe, and one of them from each training."""
    one_each = not (
        job.ensemble.snapshots or job.ensemble.mc_samples or isinstance(job.training.average, Swag)
    )
    return one_each and not job.ensemble.vary and job.search is None


def beside(
    job: JobSpec,
    decision: Decision,
    ids: Sequence[str],
    members: Mapping[str, Tensor],
    target: Tensor,
    soup: Mapping[str, Any],
    split: str,
) -> dict[str, Any]:
    """The soup as one network beside the ensemble: its metrics on a split, and what it gains over the ensemble.

    Of several tasks those of the first, and under ``tasks`` those of each by its name.

    Args:
        soup: facts, and ``predictions`` by split; none where there is no soup.
    """
    facts = {name: value for name, value in soup.items() if name != "predictions"}
    said = soup["predictions"].get(split)
    if said is None:
        return facts
    if job.task != "multitask":
        return facts | _against_soup(job, job.task, decision, ids, members, target, said)
    each = {
        name: _against_soup(
            job, task.kind, decision.of(name), ids, part_of(members, name), own, part_of(said, name)
        )
        for (name, task), own in zip(job.tasks.items(), targets_of(job, target), strict=True)
    }
    return {**facts, **next(iter(each.values())), "tasks": each}


def _against_soup(
    job: JobSpec,
    task: Task,
    decision: Decision,
    ids: Sequence[str],
    members: Mapping[str, Tensor],
    target: Tensor,
    said: Prediction,
) -> dict[str, Any]:
    spec = measured_by(job, task)
    names = asked_names(spec)
    each = [
        scored(
            decision,
            chosen_of(decision, ids, {key: stack[:, rows] for key, stack in members.items()}),
            target[rows],
            names,
        )
        for rows in pieces(members)
    ]
    ensemble = {key: torch.cat([one[key] for one in each]) for key in each[0]}
    seed = derive_seed(job.seed, -1, "bootstrap")
    _, numbers = contrast(task, [ensemble, said], target, spec=spec, seed=seed)
    return {"metrics": numbers["metrics"], "gain_over_ensemble": numbers["gain"]}
