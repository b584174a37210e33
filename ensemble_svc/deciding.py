"""From predictions to an ensemble and its numbers: decided on held-out rows, measured on others.

Shapes: K candidates (every member that finished), N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.aggregate.bytask import decide_tasks
from ensemble_svc.aggregate.calibration.conformal import PredictionSets
from ensemble_svc.aggregate.calibration.variance import VarianceScale
from ensemble_svc.aggregate.choosing import decide, shared_out
from ensemble_svc.aggregate.decision import Decision, HeldOut, Prediction, apply, equal
from ensemble_svc.aggregate.predictions import combine
from ensemble_svc.aggregate.subsets import mixtures
from ensemble_svc.aggregate.uncertainty import entropy, expected_entropy, mutual_information, variance
from ensemble_svc.evaluate.contrast import contrast
from ensemble_svc.evaluate.curve import size_curve
from ensemble_svc.evaluate.decompose import decompose
from ensemble_svc.evaluate.further import mixture_scores
from ensemble_svc.evaluate.metrics import METRICS
from ensemble_svc.evaluate.pieces import pieces, summarize_in_pieces
from ensemble_svc.evaluate.portrait import differences, each_class
from ensemble_svc.evaluate.prospect import prospect
from ensemble_svc.evaluate.reliability import reliability
from ensemble_svc.evaluate.summary import summarize
from ensemble_svc.nn.tasks import part_of
from ensemble_svc.spec.aggregate import AggregateSpec
from ensemble_svc.spec.averages import Swag
from ensemble_svc.spec.data import UNSEEN
from ensemble_svc.spec.direction import toward_less
from ensemble_svc.spec.job import EvaluateSpec, JobSpec
from ensemble_svc.spec.measured import METRICS_OF
from ensemble_svc.spec.randomness import derive_seed
from ensemble_svc.spec.tasks import Task
from ensemble_svc.store.mapped import let_go

HELD_NUMBERS = 1 << 26
"""Numbers that the members say of a split, beyond which its rows are measured a piece at a time."""
Splits = Mapping[str, Mapping[str, Tensor]]
"""Predictions by split: the members' [K, N, …], and ``target`` [N, …]; ``seen`` [K, N] of training rows."""
FACTS = ("target", "row", "seen")
TRAINED = "trained."
"""Begins the names of what the trained networks predict, where others are the members in their place."""


class Alone(NamedTuple):
    """One network beside the ensemble."""

    decision: Decision
    """How it is calibrated."""
    said: Mapping[str, Tensor]
    """Its predictions, [1, N, …]."""


def held_out(job: JobSpec, predictions: Splits) -> HeldOut | None:
    """The rows that decide, of several tasks with the answers of all; None where the job keeps none."""
    unseen = job.data.validation if job.data.validation in UNSEEN else None
    split = predictions.get("train" if unseen else "validation")
    if split is None:
        return None
    members = only_members(split)
    if unseen is None:
        return HeldOut("validation", members, split["target"])
    return HeldOut("oob" if unseen == "oob" else "oof", members, split["target"], split["seen"].bool())


def only_members(split: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The members' predictions of a split."""
    return {
        name: value for name, value in split.items() if name not in FACTS and not name.startswith(TRAINED)
    }


def only_trained(split: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trained networks' predictions of a split; none where they are the members."""
    return {n.removeprefix(TRAINED): value for n, value in split.items() if n.startswith(TRAINED)}


def those_that_calibrate(job: JobSpec, rows: HeldOut | None) -> HeldOut | None:
    """Of the held-out rows those that select and calibrate the ensemble: half of them, if a coverage is fitted too."""
    return shared_out(job.aggregate, rows, derive_seed(job.seed, -1, "select"))[0]


def decided(job: JobSpec, spec: AggregateSpec, ids: Sequence[str], rows: HeldOut | None) -> Decision:
    """The ensemble that ``spec`` asks for; the same rows give the same one."""
    seed = derive_seed(job.seed, -1, "select")
    if job.task != "multitask" or rows is None:
        return decide(spec, ids, rows, seed=seed)
    each = {
        name: HeldOut(rows.kind, part_of(rows.said, name), own)
        for name, own in zip(job.tasks, targets_of(job, rows.target), strict=True)
    }
    return decide_tasks(spec, ids, each, {name: task.weight for name, task in job.tasks.items()}, seed=seed)


def chosen_of(decision: Decision, ids: Sequence[str], members: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The chosen members' predictions in the decision's order.

    Args:
        ids: of the K candidates in ``members``.
    """
    place = {member: k for k, member in enumerate(ids)}
    each = [place[member] for member in decision.members]
    if each == list(range(each[0], each[0] + len(each))):  # no copy
        return {name: value[each[0] : each[0] + len(each)] for name, value in members.items()}
    index = torch.tensor(each)
    return {name: value[index] for name, value in members.items()}


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
        return _measure_one(job, job.task, decision, ids, members, target, best=best, single=single)
    each = {
        name: _measure_one(
            job,
            task.kind,
            decision.of(name),
            ids,
            part_of(members, name),
            own,
            best=best,
            single=single and Alone(single.decision.of(name), part_of(single.said, name)),
        )
        for (name, task), own in zip(job.tasks.items(), targets_of(job, target), strict=True)
    }
    first = next(iter(each))
    return {**each[first], "task": first, "tasks": each}


def with_targets(job: JobSpec, split: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of how a split is kept: of several tasks their targets side by side."""
    if job.task != "multitask":
        return dict(split)
    keys = [f"{name}/target" for name in job.tasks]
    rest = {name: value for name, value in split.items() if name not in keys}
    return {**rest, "target": torch.stack([split[key].flatten().float() for key in keys], 1)}


def targets_of(job: JobSpec, target_NT: Tensor) -> list[Tensor]:
    """Each task's own targets: class numbers [N], or numbers [N, 1]."""
    columns = target_NT.split(1, dim=1)
    each = zip(job.tasks.values(), columns, strict=True)
    return [y.squeeze(1).long() if task.kind == "classification" else y.contiguous() for task, y in each]


def _measure_one(
    job: JobSpec,
    task: Task,
    decision: Decision,
    ids: Sequence[str],
    members: Mapping[str, Tensor],
    target: Tensor,
    *,
    best: int | None,
    single: Alone | None = None,
) -> dict[str, Any]:
    """The numbers of one task, as ``measure``."""
    if sum(stack.numel() for stack in members.values()) > HELD_NUMBERS:
        return _measure_many(job, task, decision, ids, members, target, best=best, single=single)
    spec = measured_by(job, task)
    seed = derive_seed(job.seed, -1, "bootstrap")
    chosen = chosen_of(decision, ids, members)
    names = () if spec.metrics == "auto" else spec.metrics
    ensemble = scored(decision, chosen, target, names)
    plain = decision.is_plain and len(decision.members) == len(ids)
    rivals = {} if plain else {"equal_mixture": scored(equal(ids), members, target, names)}
    rivals |= {} if single is None else {"single": scored(single.decision, single.said, target, names)}
    summary = summarize(task, members, ensemble, target, spec=spec, best=best, seed=seed, rivals=rivals)
    extra = of_all_rows(job, task, decision, ids, members, target)
    return {**summary, **extra, **_of_classes(task, ensemble, target, spec.bins)}


def _measure_many(
    job: JobSpec,
    task: Task,
    decision: Decision,
    ids: Sequence[str],
    members: Mapping[str, Tensor],
    target: Tensor,
    *,
    best: int | None,
    single: Alone | None,
) -> dict[str, Any]:
    """The same a piece of the rows at a time; what takes all rows at once is of some, as ``sampled`` says."""
    spec = measured_by(job, task)
    seed = derive_seed(job.seed, -1, "bootstrap")
    names = () if spec.metrics == "auto" else spec.metrics
    plain = decision.is_plain and len(decision.members) == len(ids)
    rivals = [*([] if plain else ["equal_mixture"]), *([] if single is None else ["single"])]

    def say(some: Mapping[str, Tensor], rows: slice) -> list[Prediction]:
        let_go()  # of the rows before
        own = target[rows]
        said = {"ensemble": scored(decision, chosen_of(decision, ids, some), own, names)}
        if "equal_mixture" in rivals:
            said["equal_mixture"] = scored(equal(ids), some, own, names)
        if single is not None:
            alone = {key: stack[:, rows] for key, stack in single.said.items()}
            said["single"] = scored(single.decision, alone, own, names)
        return [said[name] for name in (*rivals, "ensemble")]

    summary, ensemble = summarize_in_pieces(
        task, members, say, target, spec=spec, best=best, seed=seed, rivals=rivals
    )
    step = -(-sum(stack.numel() for stack in members.values()) // HELD_NUMBERS)
    few = {key: stack[:, ::step].contiguous() for key, stack in members.items()}
    let_go()
    sampled = of_all_rows(job, task, decision, ids, few, target[::step])
    extra = sampled | {"sampled": {"rows": len(target[::step]), "what": list(sampled)}}
    return {**summary, **extra, **_of_classes(task, ensemble, target, spec.bins)}


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
    """What takes the rows all at once: size curve, forecast, diversity, coverage.

    Args:
        members: as ``measure``, of one task.
    """
    spec = measured_by(job, task)
    seed = derive_seed(job.seed, -1, "bootstrap")
    chosen = chosen_of(decision, ids, members)
    names = () if spec.metrics == "auto" else spec.metrics
    curve = size_curve(
        task,
        members,
        target,
        mixtures,
        names=tuple(name for name in names if METRICS[name].usual) or "auto",
        bins=spec.bins,
        seed=seed,
    )
    extra: dict[str, Any] = {"size_curve": curve}
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

    Args:
        soup: facts, and ``predictions`` by split; none where there is no soup.
    """
    facts = {name: value for name, value in soup.items() if name != "predictions"}
    said = soup["predictions"].get(split)
    if said is None:
        return facts
    assert job.task != "multitask"
    spec = measured_by(job, job.task)
    names = () if spec.metrics == "auto" else spec.metrics
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
    _, numbers = contrast(job.task, [ensemble, said], target, spec=spec, seed=seed)
    return {**facts, "metrics": numbers["metrics"], "gain_over_ensemble": numbers["gain"]}


def scored(
    decision: Decision, chosen: Mapping[str, Tensor], target: Tensor, names: Sequence[str] = ()
) -> Prediction:
    """The ensemble's prediction, with what the metrics named need of a mixture.

    Args:
        chosen: predictions of the decision's members, in its order.
    """
    ensemble = apply(decision, chosen, None if "log_probs" in chosen else target)
    if "log_variance" not in chosen:
        return ensemble
    calibrator, log_variance_KND = decision.calibrator, chosen["log_variance"]
    if isinstance(calibrator, VarianceScale):
        log_variance_KND = calibrator.apply(log_variance_KND)
    weights_K = torch.tensor(decision.weights, dtype=torch.float64)
    return ensemble | mixture_scores(names, chosen["mean"], log_variance_KND, target, weights_K)


def diversity(task: Task, decision: Decision, chosen: Mapping[str, Tensor], target: Tensor) -> dict[str, Any]:
    """How the chosen members differ, and the mean over the rows of the parts of their doubt.

    Returns:
        As ``evaluate.portrait.differences``; and of classes ``entropy``, ``expected_entropy`` and
        ``mutual_information`` in nats, of numbers ``total``, ``aleatoric`` and ``epistemic`` variance. The parts are
        of the members as they are, before any calibration.
    """
    weights_K = torch.tensor(decision.weights, dtype=torch.float64)
    found = differences(task, chosen, target, weights_K)
    if "log_probs" in chosen:
        parts = {
            part.__name__: part(chosen["log_probs"], weights_K)
            for part in (entropy, expected_entropy, mutual_information)
        }
    elif "log_variance" in chosen:
        parts = variance(chosen["mean"], chosen["log_variance"], weights_K)._asdict()
    else:
        parts = {}
    return found | {name: value.mean().item() for name, value in parts.items()}


def measured_by(job: JobSpec, task: Task) -> EvaluateSpec:
    """How a task is measured: of the metrics that the job asks for, those that it has."""
    asked = job.evaluate.metrics
    names = tuple(name for name in asked if name in METRICS_OF[task]) if asked != "auto" else ()
    return job.evaluate.model_copy(update={"metrics": names or "auto"})


def together(members: Mapping[str, Tensor], target: Tensor) -> Prediction:
    """The equal mixture of members; for regression with its log density of the target."""
    return combine(members, target_ND=None if "log_probs" in members else target)


def coverage(decision: Decision, ensemble: Prediction, target: Tensor) -> dict[str, float]:
    """How often the sets or intervals hold the truth, and how large they are.

    Returns:
        ``wanted`` and ``covered`` shares (of several targets, the mean), and ``size``: classes in a set, or
        the width of an interval in the target's units.
    """
    found = decision.coverage
    assert found is not None
    if isinstance(found, PredictionSets):
        inside_NC = found.apply(ensemble["log_probs"])
        covered = inside_NC.gather(1, target[:, None])
        size = inside_NC.sum(1)
    else:
        low, high = found.apply(ensemble["mean"], ensemble.get("log_variance"))
        covered, size = (low <= target) & (target <= high), high - low
    return {
        "wanted": 1 - found.alpha,
        "covered": covered.double().mean().item(),
        "size": size.double().mean().item(),
    }


def best_on_validation(job: JobSpec, metrics: Sequence[Mapping[str, Mapping[str, float]]]) -> int | None:
    """Position of the member with the lowest NLL on validation rows, or on training rows it has not seen.

    Of a search, the best by its metric. None where there are none.
    """
    name = job.search.metric if job.search else "nll"
    sign = toward_less(name)
    held = [m.get("validation") or m.get("oob") for m in metrics]
    scores = [sign * m[name] for m in held if m]
    usable = len(scores) == len(metrics) and not all(np.isnan(scores))
    return int(np.nanargmin(scores)) if scores and usable else None
