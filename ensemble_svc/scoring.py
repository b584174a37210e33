"""What the ensemble says of rows whose truth is known, and how that is measured for one task.

Shapes: K members, N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.aggregate.calibration.conformal import PredictionSets
from ensemble_svc.aggregate.calibration.variance import VarianceScale
from ensemble_svc.aggregate.decision import Decision, Prediction, apply
from ensemble_svc.aggregate.predictions import combine
from ensemble_svc.aggregate.uncertainty import entropy, expected_entropy, mutual_information, variance
from ensemble_svc.evaluate.further import mixture_scores
from ensemble_svc.evaluate.metrics import METRICS, Names, applicable
from ensemble_svc.evaluate.portrait import differences
from ensemble_svc.spec.job import EvaluateSpec, JobSpec
from ensemble_svc.spec.measured import METRICS_OF
from ensemble_svc.spec.tasks import Task


def measured_by(job: JobSpec, task: Task) -> EvaluateSpec:
    """How a task is measured: of the metrics that the job asks for, those that it has."""
    asked = job.evaluate.metrics
    names = tuple(name for name in asked if name in METRICS_OF[task]) if asked != "auto" else ()
    return job.evaluate.model_copy(update={"metrics": names or "auto"})


def asked_names(spec: EvaluateSpec) -> Sequence[str]:
    """The metrics that are asked for by name; none where the usual ones are."""
    return () if spec.metrics == "auto" else spec.metrics


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


def together(members: Mapping[str, Tensor], target: Tensor) -> Prediction:
    """The equal mixture of members; for regression with its log density of the target."""
    return combine(members, target_ND=None if "log_probs" in members else target)


def pick_curve(
    task: Task, decision: Decision, chosen: Mapping[str, Tensor], target: Tensor, names: Names, bins: int
) -> list[dict[str, float]]:
    """The ensemble's metrics after so many of its picks, calibrated and combined as it is.

    Args:
        chosen: predictions of the decision's members, in its order.
        names: metrics; the usual ones of the task with ``auto``.

    Returns:
        ``{"picks", "members", metric: value}`` for 1, 2, 3, 4, 6, 8, 12, … and all picks; nothing where the weights
        are not the counts of the picks.
    """
    place = {own: k for k, own in enumerate(decision.members)}
    order = [place[own] for own in decision.picks if own in place]
    if len(order) < 2 or not _are_counts(order, decision.weights):
        return []
    sizes = [size for power in range(17) for size in (1 << power, 3 << power) if size < len(order)]
    return [
        _after(task, decision, chosen, target, order[:size], names, bins)
        for size in (*sorted(sizes), len(order))
    ]


def _are_counts(order: Sequence[int], weights: Sequence[float]) -> bool:
    shares = np.bincount(order, minlength=len(weights)) / len(order)
    return bool(np.allclose(shares, weights, atol=1e-6))


def _after(
    task: Task,
    decision: Decision,
    chosen: Mapping[str, Tensor],
    target: Tensor,
    order: Sequence[int],
    names: Names,
    bins: int,
) -> dict[str, float]:
    counts = np.bincount(order)
    kept = np.flatnonzero(counts)
    weights = tuple((counts[kept] / len(order)).tolist())
    some = decision.model_copy(
        update={"members": tuple(decision.members[k] for k in kept), "weights": weights}
    )
    said = scored(some, {name: value[torch.from_numpy(kept)] for name, value in chosen.items()}, target)
    measured = {name: METRICS[name].value(said, target, bins) for name in applicable(task, said, names)}
    return {"picks": len(order), "members": len(kept), **measured}


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
