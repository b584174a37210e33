"""What held-out rows must be before anything is fitted on them.

Shapes: N held-out rows, C classes, D targets.
"""

from __future__ import annotations

from torch import Tensor

from ensemble_svc.aggregate.checks import check_gaussians, check_log_probs
from ensemble_svc.errors import EnsembleError


def check_classes(log_probs_NC: Tensor, target_N: Tensor) -> None:
    """Refuse what is not N distributions over C classes with a class number each.

    Raises:
        EnsembleError: naming the shapes or the range.
    """
    if log_probs_NC.ndim != 2 or target_N.shape != log_probs_NC.shape[:1] or len(target_N) == 0:
        raise EnsembleError(
            f"log_probs has shape {list(log_probs_NC.shape)} and the targets {list(target_N.shape)}; they must "
            "be [rows, classes] and [rows], with at least one row."
        )
    if target_N.is_floating_point():
        raise EnsembleError(f"the targets are {target_N.dtype}; class numbers are integers.")
    low, high, num_classes = int(target_N.min()), int(target_N.max()), log_probs_NC.shape[1]
    if low < 0 or high >= num_classes:
        raise EnsembleError(
            f"the targets run from {low} to {high}; {num_classes} classes are 0 to {num_classes - 1}."
        )
    check_log_probs(log_probs_NC[None])


def check_numbers(mean_ND: Tensor, log_variance_ND: Tensor | None, target_ND: Tensor) -> None:
    """Refuse what is not N x D finite means, log variances where given, and targets.

    Raises:
        EnsembleError: naming the shapes, or the first row that is not finite.
    """
    if mean_ND.ndim != 2 or target_ND.shape != mean_ND.shape or len(target_ND) == 0:
        raise EnsembleError(
            f"mean has shape {list(mean_ND.shape)} and the targets {list(target_ND.shape)}; both must be "
            "[rows, targets], with at least one row."
        )
    check_gaussians(mean_ND[None], None if log_variance_ND is None else log_variance_ND[None])
    if not target_ND.isfinite().all():
        raise EnsembleError("the targets are not all finite; nothing can be fitted to NaN.")
