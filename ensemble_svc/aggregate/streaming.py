"""The mixture of very many members on a few rows at a time, as fast as the rows can be read.

A float32 log probability of -5 is itself only told to 2e-7 of its probability, so the exponentials are taken in float32
(off by 6e-8), added in float32 a few members at a time, and those sums in float64. Rows with a class so improbable that
float32 has no digits for it are combined as ``predictions.average`` does. Law: the result is that of ``average`` to
1e-6 of each probability.

Shapes: K members, N rows, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ensemble_svc.aggregate.checks import (
    NORMALISATION_TOLERANCE,
    check_log_probs,
    check_stack,
    member_weights,
)
from ensemble_svc.aggregate.predictions import average

TOGETHER = 8
"""Members whose probabilities are added in float32."""
TINY = 1e-30
"""A mean probability below this is computed anew in float64: float32 has nothing below 1e-38."""


def average_fast(log_probs_KNC: Tensor, weights_K: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Log of the members' mean probability, and the members' probabilities.

    Args:
        log_probs_KNC: float32, each row's ``exp`` sums to 1.
        weights_K: non-negative, sum 1; equal when absent.

    Returns:
        [N, C] and [K, N, C], both float32.

    Raises:
        EnsembleError: members or weights that cannot be combined; the member and its first wrong row are named.
    """
    check_stack("log_probs", log_probs_KNC, "members, rows, classes")
    weights = member_weights(weights_K, len(log_probs_KNC))
    probs_KNC = log_probs_KNC.exp()
    ones_C = probs_KNC.new_ones(probs_KNC.shape[2])
    if not ((probs_KNC @ ones_C - 1).abs() <= NORMALISATION_TOLERANCE / 2).all():
        check_log_probs(log_probs_KNC)  # says which member and row
    mean_NC = probs_KNC.new_zeros(probs_KNC.shape[1:], dtype=torch.float64)
    for start in range(0, len(weights), TOGETHER):
        some, shares = probs_KNC[start : start + TOGETHER], weights[start : start + TOGETHER]
        if len(set(shares)) == 1:
            mean_NC.add_(some.sum(dim=0), alpha=shares[0])
        else:
            mean_NC += torch.einsum("k,knc->nc", some.new_tensor(shares), some)
    tiny_N = (mean_NC < TINY).any(dim=-1)
    log_NC = mean_NC.log_().float()
    if tiny_N.any():
        log_NC[tiny_N] = average(log_probs_KNC[:, tiny_N], weights_K)
    return log_NC, probs_KNC
