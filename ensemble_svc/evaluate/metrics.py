"""The catalogue of metrics: what each means, which way is better, and how it is computed.

Every metric is a function of *means over the rows*. Each row gives a few numbers (``rows``), and a function
of their means is the metric (``finish``): the mean itself (accuracy, nll, brier, mae), its root (rmse),
or, for the calibration error, the sum over bins of the absolute mean gap between confidence and
correctness. One way of computing thus serves the plain value and every bootstrap resample.
Sums run in float64.

Regression with D > 1 targets: rmse and mae take the mean over the targets of the (squared) error of a row,
in the targets' units; nll and nll_gaussian are of the row's targets together, so they are sums over them.

The calibration error has torchmetrics' bins and agrees with its ``multiclass_calibration_error`` but for
round-off: that one adds up in float32 (measured on eight published CIFAR-10 networks: off by up to 1.6e-5
at 10,000 rows; on made-up ones by 3e-4 at 500,000) and takes a softmax of all its input when one
probability exceeds 1, as it may by round-off. Hence the sums here are our own, in float64.

A few metrics are no function of means over rows (they rank the rows, or cut them into bins of equal mass);
they are computed of all rows at once (``whole``) and have no interval, for a resample is counts of rows.

Shapes: N examples, C classes, D targets, S statistics of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ensemble_svc.errors import EnsembleError, did_you_mean
from ensemble_svc.evaluate import further, rows
from ensemble_svc.evaluate.checks import check_prediction
from ensemble_svc.evaluate.rows import Prediction, mean
from ensemble_svc.spec.job import Task

Names = Iterable[str] | Literal["auto"]
"""Metrics by name, or the usual ones that the task and the prediction allow."""


@dataclass(frozen=True)
class MetricInfo:
    """One metric: its meaning and its computation."""

    needs: Mapping[Task, tuple[str, ...]]
    """For each task that has it, the keys of a prediction without which it cannot be computed."""
    higher_is_better: bool
    doc: str
    """One sentence, with units and range."""
    rows: Callable[[Prediction, Tensor, int], Tensor] | None = None
    """(prediction, target, bins) → [N, S] float64; None where it is no function of means over rows."""
    finish: Callable[[Tensor], Tensor] = mean
    """Means over the rows [..., S] → the metric [...]."""
    whole: Callable[[Prediction, Tensor, int], float] | None = None
    """(prediction, target, bins) → the metric, where there are no ``rows``."""
    per_row: bool = True
    """Whether it is the mean, or the root of the mean, of one number per row."""
    usual: bool = True
    """Whether ``auto`` has it."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that have it."""
        return tuple(self.needs)

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is: times a change, the improvement."""
        return 1 if self.higher_is_better else -1

    @property
    def resamples(self) -> bool:
        """Whether a resample of the rows is only other means, so that there are intervals."""
        return self.rows is not None

    def statistics(self, prediction: Prediction, target: Tensor, bins: int) -> Tensor:
        """What each row contributes, [N, S] float64.

        Raises:
            EnsembleError: a metric of all rows at once.
        """
        if self.rows is None:
            raise EnsembleError(f"this metric is no mean over rows: {self.doc}")
        return self.rows(prediction, target, bins)

    def value(self, prediction: Prediction, target: Tensor, bins: int) -> float:
        """The metric of one prediction."""
        if self.whole is not None:
            return self.whole(prediction, target, bins)
        return self.finish(self.statistics(prediction, target, bins).mean(dim=0)).item()


_CLASSES: Mapping[Task, tuple[str, ...]] = {"classification": ("log_probs",)}
_MEANS: Mapping[Task, tuple[str, ...]] = {"regression": ("mean",)}
_GAUSSIANS: Mapping[Task, tuple[str, ...]] = {"regression": ("mean", "log_variance")}

METRICS: Mapping[str, MetricInfo] = {
    "accuracy": MetricInfo(
        needs=_CLASSES,
        higher_is_better=True,
        doc="Share of the rows whose most probable class is the true one, 0 to 1.",
        rows=rows.accuracy_rows,
        finish=rows.mean,
    ),
    "rmse": MetricInfo(
        needs=_MEANS,
        higher_is_better=False,
        doc="Root of the mean squared error over rows and targets, in the target's units.",
        rows=rows.squared_error_rows,
        finish=rows.root,
    ),
    "mae": MetricInfo(
        needs=_MEANS,
        higher_is_better=False,
        doc="Mean absolute error over rows and targets, in the target's units.",
        rows=rows.absolute_error_rows,
        finish=rows.mean,
    ),
    "nll": MetricInfo(
        needs={**_CLASSES, **_GAUSSIANS},
        higher_is_better=False,
        doc="Mean of minus the log probability of the truth, in nats; an ensemble's is its mixture's.",
        rows=rows.nll_rows,
        finish=rows.mean_or_infinity,
    ),
    "nll_gaussian": MetricInfo(
        needs=_GAUSSIANS,
        higher_is_better=False,
        doc="The same for the Gaussian that has the mixture's mean and variance, as Deep Ensembles report.",
        rows=rows.gaussian_nll_rows,
        finish=rows.mean_or_infinity,
    ),
    "brier": MetricInfo(
        needs=_CLASSES,
        higher_is_better=False,
        doc="Squared distance of the probabilities from the one-hot truth, sum over the classes, 0 to 2.",
        rows=rows.brier_rows,
        finish=rows.mean,
    ),
    "ece": MetricInfo(
        needs=_CLASSES,
        higher_is_better=False,
        doc="Mean absolute gap between confidence and accuracy over equal-width bins, 0 to 1.",
        rows=rows.gap_rows,
        finish=rows.total_gap,
        per_row=False,
    ),
    "top5": MetricInfo(
        needs=_CLASSES,
        higher_is_better=True,
        doc="Share of the rows whose true class is among the five most probable, 1 where there are no more.",
        rows=further.top5_rows,
        usual=False,
    ),
    "ece_adaptive": MetricInfo(
        needs=_CLASSES,
        higher_is_better=False,
        doc="The calibration error over bins of equally many rows, 0 to 1.",
        whole=further.adaptive,
        per_row=False,
        usual=False,
    ),
    "ece_classwise": MetricInfo(
        needs=_CLASSES,
        higher_is_better=False,
        doc="Mean over the classes of the calibration error of each class's probability, 0 to 1.",
        whole=further.classwise,
        per_row=False,
        usual=False,
    ),
    "ece_smooth": MetricInfo(
        needs=_CLASSES,
        higher_is_better=False,
        doc="The calibration error with a Gaussian of its own width in place of bins, 0 to 1.",
        whole=further.smooth,
        per_row=False,
        usual=False,
    ),
    "aurc": MetricInfo(
        needs=_CLASSES,
        higher_is_better=False,
        doc="Mean error rate when only the surest rows are answered, over every share of them, 0 to 1.",
        whole=further.area_under_risk,
        per_row=False,
        usual=False,
    ),
    "excess_aurc": MetricInfo(
        needs=_CLASSES,
        higher_is_better=False,
        doc="That area above what doubting exactly the wrong rows would leave: the ranking's own part, 0 to 1.",
        whole=further.excess_area_under_risk,
        per_row=False,
        usual=False,
    ),
    "brier_reliability": MetricInfo(
        needs=_CLASSES,
        higher_is_better=False,
        doc="The part of the Brier score that calibration could remove, over equal-width bins, 0 to 2.",
        whole=further.reliability,
        per_row=False,
        usual=False,
    ),
    "brier_resolution": MetricInfo(
        needs=_CLASSES,
        higher_is_better=True,
        doc="The part of the Brier score that telling the rows apart took away, over equal-width bins, 0 to 1.",
        whole=further.resolution,
        per_row=False,
        usual=False,
    ),
    "crps": MetricInfo(
        needs=_GAUSSIANS,
        higher_is_better=False,
        doc="Distance of the predicted distribution from the truth, mean over rows and targets, in their units.",
        rows=further.crps_rows,
        usual=False,
    ),
    "pinball": MetricInfo(
        needs=_GAUSSIANS,
        higher_is_better=False,
        doc="Mean pinball loss of the 5 % and the 95 % quantile over rows and targets, in the target's units.",
        rows=further.pinball_rows,
        usual=False,
    ),
    "width90": MetricInfo(
        needs=_GAUSSIANS,
        higher_is_better=False,
        doc="Mean width of the central 90 % interval, in the target's units; read it beside coverage_gap.",
        rows=further.width_rows,
        usual=False,
    ),
    "coverage_gap": MetricInfo(
        needs=_GAUSSIANS,
        higher_is_better=False,
        doc="How far the share of the truths inside the central 90 % interval is from 90 %, 0 to 0.9.",
        rows=further.inside_rows,
        finish=further.coverage_gap,
        per_row=False,
        usual=False,
    ),
}


def measure(
    task: Task, prediction: Prediction, target: Tensor, *, names: Names = "auto", bins: int = 15
) -> dict[str, float]:
    """The metrics of one prediction, a member's or an ensemble's.

    Args:
        prediction: ``log_probs`` [N, C]; or ``mean`` and ``log_variance`` [N, D], with ``log_density`` [N]
            for an ensemble, whose ``nll`` is then the mixture's.
        target: class numbers [N]; or numbers [N, D] in the units of the mean.
        names: which metrics; ``auto`` for the usual ones of the task that the prediction allows.
        bins: of the calibration errors.

    Returns:
        Metric by name. ``nll`` is infinite when some row's true class was given probability 0.

    Raises:
        EnsembleError: a metric of another task or an unknown one; shapes that do not match; NaN.
    """
    check_prediction(task, prediction, target, who="the prediction")
    return {
        name: METRICS[name].value(prediction, target, bins) for name in applicable(task, prediction, names)
    }


def applicable(task: Task, prediction: Prediction, names: Names = "auto") -> tuple[str, ...]:
    """The metrics that can be computed, in the order asked for, or the catalogue's for ``auto``.

    Raises:
        EnsembleError: a name that is unknown, of another task, or needs what the prediction lacks.
    """
    known = {name: metric.needs[task] for name, metric in METRICS.items() if task in metric.needs}
    if names == "auto":
        usual = {name: needs for name, needs in known.items() if METRICS[name].usual}
        return tuple(name for name, needs in usual.items() if all(key in prediction for key in needs))
    for name in names:
        if name not in known:
            raise EnsembleError(
                f"'{name}' is no metric of {task}.{did_you_mean(name, known)} Known: {', '.join(known)}."
            )
        lacking = [key for key in known[name] if key not in prediction]
        if lacking:
            raise EnsembleError(f"metric '{name}' needs {' and '.join(lacking)}, which the members lack.")
    return tuple(dict.fromkeys(names))
