"""Doubts: numbers by which rows are ranked, larger where the ensemble is less sure or a row looks foreign.

Each is in ``DOUBTS`` by name, so a report can go through them all. They rank rows; their sizes are not comparable.

Shapes: K members, N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ensemble_svc.aggregate.predictions import average
from ensemble_svc.aggregate.uncertainty import entropy, expected_entropy, mutual_information
from ensemble_svc.errors import EnsembleError

NORMALISED = 1e-3
"""Outputs whose log-sum-exp is this near to 0 in every row are log probabilities, not logits."""


def max_probability(log_probs_KNC: Tensor, weights_K: Tensor | None = None) -> Tensor:
    """1 minus the ensemble's largest probability, [N] (Hendrycks & Gimpel 2017).

    Raises:
        EnsembleError: members or weights that cannot be combined.
    """
    return 1 - average(log_probs_KNC, weights_K, dtype=torch.float64).amax(dim=-1).exp()


def energy(logits_KNC: Tensor) -> Tensor:
    """Minus the members' mean log-sum-exp of the logits, [N] (Liu et al. 2020, arXiv:2010.03759).

    Raises:
        EnsembleError: log probabilities in the place of logits: their log-sum-exp is 0 in every row, so they
            say nothing of this kind.
    """
    if logits_KNC.ndim != 3 or 0 in logits_KNC.shape or not logits_KNC.isfinite().all():
        raise EnsembleError(
            f"the logits have shape {list(logits_KNC.shape)}; they must be finite, of [members, rows, classes]."
        )
    log_sum_KN = torch.stack([member_NC.double().logsumexp(dim=-1) for member_NC in logits_KNC])
    if (log_sum_KN.abs() < NORMALISED).all():
        raise EnsembleError(
            "these are log probabilities, whose energy is 0 in every row; the energy needs the network's "
            "outputs before the softmax."
        )
    return -log_sum_KN.mean(dim=0)


DOUBTS: Mapping[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "max_probability": max_probability,
    "entropy": entropy,
    "expected_entropy": expected_entropy,
    "mutual_information": mutual_information,
}
"""Doubts that need only (log_probs_KNC, weights_K); ``energy`` needs logits and stands alone."""
