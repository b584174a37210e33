"""What the ensemble says of rows whose truth is known, and how that is measured for one task.

Shapes: K members, N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ensemble_svc.aggregate.calibration.conformal import PredictionSets
from ensemble_svc.aggregate.calibration.variance import VarianceScale
from ensemble_svc.aggregate.decision import Decision, Prediction, apply
from ensemble_svc.aggregate.predictions import combine
from ensemble_svc.aggregate.uncertainty import entropy, expected_entropy, mutual_information, variance
from ensemble_svc.evaluate.further import mixture_scores
from ensemble_svc.evaluate.portrait import differences
from ensemble_svc.spec.job import EvaluateSpec, JobSpec
from ensemble_svc.spec.measured import METRICS_OF
from ensemble_svc.spec.tasks import Task


def measured_by(job: JobSpec, task: Task) -> EvaluateSpec:
    """How a task is measured: of the metrics that the job asks for, those that it has."""
    asked = job.evaluate.metrics
    names = tuple(name for name in asked if name in METRICS_OF[task]) if asked != "auto" else ()
    return job.evaluate.model_copy(update={"metrics": names or "auto"})


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
