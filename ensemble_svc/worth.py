"""What the several members of one training are worth: against the trained network, and in independent trainings.

Shapes: K trainings, S members of each, N rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ensemble_svc.aggregate.subsets import mixtures
from ensemble_svc.evaluate.checks import MIXTURE_KEYS
from ensemble_svc.evaluate.curve import size_curve
from ensemble_svc.evaluate.equivalents import equivalents
from ensemble_svc.evaluate.metrics import measure
from ensemble_svc.evaluate.summary import mean_of
from ensemble_svc.scoring import together
from ensemble_svc.spec.job import EvaluateSpec
from ensemble_svc.spec.tasks import Task


def worth(
    task: Task,
    members: Mapping[str, Tensor],
    trained: Mapping[str, Tensor],
    target: Tensor,
    *,
    spec: EvaluateSpec,
    seed: int,
) -> dict[str, Any]:
    """The mixture of one training's members, compared with the networks that the trainings end with.

    Args:
        members: [K S, N, …], those of one training beside each other.
        trained: predictions of the trained networks (of their averages, where there are any), [K, N, …].
        seed: of the subsets of trainings.

    Metrics that need more of a mixture of Gaussians than its moments and its density (CRPS and those of its interval)
    are left out.

    Returns:
        ``{"number": K, "members_of_each": S, "network": {metric: mean over K}, "mixture": {metric: mean over K}}``,
        and with several trainings ``equivalents``: {metric: {members, fewest, most}}, the independent trained networks
        whose mixture is as good as that of one training's members; None where even all K of them are not.
    """
    spec = _of_any_mixture(spec)
    number = len(next(iter(trained.values())))
    each = len(next(iter(members.values()))) // number
    groups = [
        {name: value[k * each : (k + 1) * each] for name, value in members.items()} for k in range(number)
    ]
    alone = [{name: value[k : k + 1] for name, value in trained.items()} for k in range(number)]
    network, mixture = (
        mean_of(
            [
                measure(task, together(some, target), target, names=spec.metrics, bins=spec.bins)
                for some in found
            ]
        )
        for found in (alone, groups)
    )
    found = {"number": number, "members_of_each": each, "network": network, "mixture": mixture}
    if number < 2:
        return found
    curve = size_curve(
        task,
        trained,
        target,
        mixtures,
        names=spec.metrics,
        bins=spec.bins,
        seed=seed,
    )
    worths = {
        name: equivalents(score, curve, name) for name, score in mixture.items() if not math.isnan(score)
    }
    return {**found, "equivalents": {name: _plain(vars(value)) for name, value in worths.items()}}


def _of_any_mixture(spec: EvaluateSpec) -> EvaluateSpec:
    """Of the metrics asked for, those that the prediction of every mixture has; the usual ones where that is none."""
    if spec.metrics == "auto":
        return spec
    names = tuple(name for name in spec.metrics if MIXTURE_KEYS.get(name) in (None, "log_density"))
    return spec.model_copy(update={"metrics": names or "auto"})


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no infinity."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
