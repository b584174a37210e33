"""What a prediction and its targets must be before a number may be said about them.

A shape that is off by one axis would broadcast and give a number that means nothing ([N] against [N, 1]
is [N, N]), so shapes are checked here, once, and never bent to fit.

Shapes: N examples, C classes, D targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError
from ensemble_svc.spec.job import Task

NORMALISATION_TOLERANCE = 1e-3
"""How far the log of a row's probabilities' sum may be from 0: float32 round-off over many classes."""
ROWS = 1 << 14
"""Looked at together."""


def check_prediction(task: Task, prediction: Mapping[str, Tensor], target: Tensor, *, who: str) -> None:
    """Refuse predictions and targets that do not belong together.

    Args:
        who: whose prediction it is, for the message: ``member 3``, ``the ensemble``.

    Raises:
        EnsembleError: a missing key, shapes that do not match, no rows, NaN, probabilities that do not
            sum to 1, a class number out of range.
    """
    if task == "classification":
        _check_classes(_need(prediction, "log_probs", who), target, who)
    else:
        _check_numbers(prediction, target, who)


def split_members(task: Task, members: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Each member's own prediction, from the stack of all; keys that are no prediction are left out.

    Raises:
        EnsembleError: no members, or stacks of different lengths.
    """
    keys = ("log_probs",) if task == "classification" else ("mean", "log_variance")
    stacks = {key: members[key] for key in keys if key in members}
    if not stacks:
        found = ", ".join(sorted(members)) or "nothing"
        raise EnsembleError(f"the members' predictions hold {found}; {' and '.join(keys)} are needed.")
    counts = {key: len(stack) if stack.ndim == 3 else 0 for key, stack in stacks.items()}
    if min(counts.values()) == 0 or len(set(counts.values())) > 1:
        shapes = ", ".join(f"{key} {list(stack.shape)}" for key, stack in stacks.items())
        raise EnsembleError(f"the members' predictions are {shapes}; they must be [members, rows, ...].")
    return [{key: stack[k] for key, stack in stacks.items()} for k in range(next(iter(counts.values())))]


MIXTURE_KEYS = {
    "nll": "log_density",
    "crps": "crps",
    "pinball": "low",
    "width90": "low",
    "coverage_gap": "low",
}
"""By metric, the key without which an ensemble of Gaussians would be scored as one Gaussian."""


def check_mixture(names: Iterable[str], ensemble: Mapping[str, Tensor], *, num_members: int) -> None:
    """Refuse to call the moment-matched Gaussian's score the mixture's.

    Raises:
        EnsembleError: ``nll`` of several Gaussian members without ``log_density``, and likewise of the others.
    """
    if num_members == 1 or "log_probs" in ensemble:
        return
    for name in names:
        if name in MIXTURE_KEYS and MIXTURE_KEYS[name] not in ensemble:
            raise EnsembleError(
                f"{name} of {num_members} Gaussian members is their mixture's and needs {MIXTURE_KEYS[name]}; "
                "nll_gaussian is that of the Gaussian with the mixture's mean and variance."
            )


def check_targets(target_N: Tensor, num_classes: int, *, num_rows: int | None = None) -> None:
    """Refuse what are no class numbers, or not those of so many rows.

    Raises:
        EnsembleError: another shape or type, no rows, a class number out of range.
    """
    if target_N.ndim != 1 or target_N.is_floating_point() or target_N.dtype == torch.bool:
        raise EnsembleError(
            f"the targets are {target_N.dtype} of shape {list(target_N.shape)}; "
            "class numbers are integers of shape [rows]."
        )
    if num_rows is not None and len(target_N) != num_rows:
        raise EnsembleError(f"there are {len(target_N)} targets, and predictions of {num_rows} rows.")
    if not len(target_N):
        raise EnsembleError("there are no rows; nothing can be measured on none.")
    low, high = int(target_N.min()), int(target_N.max())
    if low < 0 or high >= num_classes:
        raise EnsembleError(
            f"the targets run from {low} to {high}; {num_classes} classes are 0 to {num_classes - 1}."
        )


def _check_classes(log_probs_NC: Tensor, target_N: Tensor, who: str) -> None:
    if target_N.ndim == 1:
        shape = (len(target_N), *log_probs_NC.shape[-1:])
        _check_shape(who, "log_probs", log_probs_NC, shape, "[rows, classes]")
    check_targets(target_N, log_probs_NC.shape[-1])
    if all(_plainly_normalised(some_nC) for some_nC in log_probs_NC.split(ROWS)):
        return
    log_total_N = torch.logsumexp(log_probs_NC, dim=-1)
    wrong_N = ~(log_total_N.abs() <= NORMALISATION_TOLERANCE)
    if wrong_N.any():
        row = int(wrong_N.nonzero()[0])
        raise EnsembleError(
            f"{who}: the probabilities sum to {log_total_N[row].exp():.6g} in row {row}, not to 1. "
            "Pass log_softmax of the network's outputs, not the outputs themselves."
        )


def _plainly_normalised(log_probs_NC: Tensor) -> bool:
    """Whether the probabilities sum to 1 well within the tolerance; a quarter of the time of their logarithm."""
    probs_NC = log_probs_NC.exp()
    low, high = (end.item() for end in torch.aminmax(probs_NC @ probs_NC.new_ones(probs_NC.shape[1])))
    return low >= 1 - NORMALISATION_TOLERANCE / 2 and high <= 1 + NORMALISATION_TOLERANCE / 2


def _check_numbers(prediction: Mapping[str, Tensor], target_ND: Tensor, who: str) -> None:
    mean_ND = _need(prediction, "mean", who)
    if target_ND.ndim != 2:
        raise EnsembleError(f"the targets have shape {list(target_ND.shape)}; they must be [rows, targets].")
    if not target_ND.isfinite().all():
        raise EnsembleError("the targets are not all finite; numbers cannot be scored against NaN.")
    shapes = {"mean": target_ND.shape, "log_variance": target_ND.shape, "log_density": target_ND.shape[:1]}
    for name, shape in shapes.items():
        if name in prediction:
            _check_shape(who, name, prediction[name], tuple(shape), "[rows, targets]")
    for name, values in (("mean", mean_ND), ("log_variance", prediction.get("log_variance", mean_ND))):
        wrong_N = ~values.isfinite().all(dim=-1)
        if wrong_N.any():
            row = int(wrong_N.nonzero()[0])
            raise EnsembleError(f"{who}: {name} is {values[row].tolist()} in row {row}; it must be finite.")
    if "log_density" in prediction and prediction["log_density"].isnan().any():
        raise EnsembleError(f"{who}: log_density holds NaN.")


def _need(prediction: Mapping[str, Tensor], key: str, who: str) -> Tensor:
    if key not in prediction:
        raise EnsembleError(f"{who} gives {', '.join(sorted(prediction)) or 'nothing'}; {key} is needed.")
    return prediction[key]


def _check_shape(who: str, name: str, values: Tensor, shape: tuple[int, ...], axes: str) -> None:
    if tuple(values.shape) != shape or values.ndim == 0:
        raise EnsembleError(
            f"{who}: {name} has shape {list(values.shape)}; these targets need {list(shape)}, {axes}."
        )
    if values.shape[0] == 0:
        raise EnsembleError(f"{who}: {name} has no rows; nothing can be measured on none.")
    if not values.is_floating_point():
        raise EnsembleError(f"{who}: {name} holds {values.dtype}; it must hold floating point numbers.")
