"""The table of a run: the ensemble, its members, and what the ensemble gains over them.

A gain is positive when the ensemble is better, whichever way the metric runs. It is given against the
mean of the members' metrics (what one more training run would be expected to give) and against one
member that the caller chose without looking at these rows, on validation; the best of the members *on these
rows* is shown too, but it was chosen by the numbers it shows and no gain is measured against it.

Memory: 8 bytes x rows x (members + 1) x (bins + 5) for classification, and the bootstrap's chunk;
1,000 resamples of 50,000 rows and 10 members take 3 s of CPU.

Shapes: K members, N examples, R resamples, M predictions (the members, then the ensemble).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.checks import check_mixture, check_prediction, split_members
from ensemble_svc.evaluate.gain import Measured, measure_together
from ensemble_svc.evaluate.metrics import METRICS, applicable
from ensemble_svc.evaluate.rows import Prediction
from ensemble_svc.spec.job import EvaluateSpec, Task


def summarize(
    task: Task,
    members: Mapping[str, Tensor],
    ensemble: Prediction,
    target: Tensor,
    *,
    spec: EvaluateSpec,
    best: int | None,
    seed: int,
    rivals: Mapping[str, Prediction] | None = None,
) -> dict[str, Any]:
    """Metrics of the ensemble and of each member, and the gains with paired bootstrap intervals.

    Args:
        members: ``log_probs`` [K, N, C], or ``mean`` and ``log_variance`` [K, N, D]; other keys are ignored.
        ensemble: the same without K; for regression with ``log_density`` [N], the mixture's.
        target: class numbers [N]; or numbers [N, D] in the units of the mean.
        spec: metrics, bins, number of resamples, confidence.
        best: position of the member chosen on *other* rows; None leaves that comparison out.
        seed: of the bootstrap's draws.
        rivals: other predictions of the rows, by name, that the ensemble is compared with.

    Returns:
        ``{"ensemble": {metric: value}, "members": {"mean", "std", "best", "worst": {metric: value}, "each":
        [{metric: value}]}, "gain": {"over_mean_member", "over_best_member": {metric: {estimate, low,
        high}}}, "rows": N}``; with rivals also ``"rivals": {name: {metric: value}}`` and a gain ``over_<name>`` for
        each. ``std`` is the sample deviation (n - 1), 0 for one member. ``best`` and
        ``worst`` are per metric, on these rows. A gain between two infinite values is NaN.

    Raises:
        EnsembleError: predictions and targets that do not belong together (the member is named); ``best``
            out of range; a regression ensemble of several members without ``log_density``.
    """
    each = split_members(task, members)
    if best is not None and not 0 <= best < len(each):
        raise EnsembleError(f"best is member {best}; the members are 0 to {len(each) - 1}.")
    for k, member in enumerate(each):
        check_prediction(task, member, target, who=f"member {k}")
    check_prediction(task, ensemble, target, who="the ensemble")
    names = applicable(task, each[0], spec.metrics)
    check_mixture(names, ensemble, num_members=len(each))

    rivals, num_members = rivals or {}, len(each)
    measured = measure_together(
        [*each, *rivals.values(), ensemble],
        target,
        names,
        bins=spec.bins,
        resamples=spec.resamples,
        seed=seed,
    )
    return tabulate(
        measured, num_members, rows=len(target), confidence=spec.confidence, best=best, rivals=tuple(rivals)
    )


def tabulate(
    measured: Measured,
    num_members: int,
    *,
    rows: int,
    confidence: float,
    best: int | None = None,
    rivals: Sequence[str] = (),
) -> dict[str, Any]:
    """The table that ``summarize`` returns.

    Args:
        measured: of the members, then the rivals, then the ensemble.
    """
    gain = {"over_mean_member": measured.gains(-1, range(num_members), confidence)}
    if best is not None:
        gain["over_best_member"] = measured.gains(-1, [best], confidence)
    others = {}
    for number, rival in enumerate(rivals, start=num_members):
        gain[f"over_{rival}"] = measured.gains(-1, [number], confidence)
        others[rival] = {name: values[number].item() for name, values in measured.point.items()}
    return {
        "ensemble": {name: values[-1].item() for name, values in measured.point.items()},
        "members": describe({name: values_M[:num_members] for name, values_M in measured.point.items()}),
        "gain": gain,
        "rows": rows,
        **({"rivals": others} if others else {}),
    }


def mean_of(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric over several predictions."""
    return {name: sum(one[name] for one in values) / len(values) for name in values[0]}


def describe(values: Mapping[str, Tensor]) -> dict[str, Any]:
    """Mean, spread, extremes and each of the members' metrics; ``values`` holds [K] per metric."""
    num_members = len(next(iter(values.values()))) if values else 0
    ends = {name: (values_K.max().item(), values_K.min().item()) for name, values_K in values.items()}
    better = {name: METRICS[name].higher_is_better for name in values}
    return {
        "mean": {name: values_K.mean().item() for name, values_K in values.items()},
        "std": {name: _deviation(values_K) for name, values_K in values.items()},
        "best": {name: high if better[name] else low for name, (high, low) in ends.items()},
        "worst": {name: low if better[name] else high for name, (high, low) in ends.items()},
        "each": [{name: values_K[k].item() for name, values_K in values.items()} for k in range(num_members)],
    }


def _deviation(values_K: Tensor) -> float:
    return values_K.std().item() if len(values_K) > 1 else 0.0
