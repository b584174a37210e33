"""Other ways than the mixture to make one distribution over classes of the members'.

``geometric`` is the mean of the log probabilities, normalised (for softmax networks the softmax of the mean
logits): the logarithmic opinion pool, in which a single member's "impossible" is a veto. ``vote`` is majority
voting. Neither is the distribution of a member drawn at random, so uncertainty splits (entropy, mutual
information) speak of the mixture and not of these.

Laws: an ensemble of one is its member (for ``vote``, its predicted class); members may come in any order;
a member of weight 0 has no effect; K copies are the member.

Shapes: K members, N rows, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ensemble_svc.aggregate.checks import check_log_probs, member_weights
from ensemble_svc.aggregate.running import RunningGeometric, RunningVotes


def geometric(
    log_probs_KNC: Tensor, weights_K: Tensor | None = None, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Log of the members' normalised geometric mean probability.

    Args:
        log_probs_KNC: each row's ``exp`` sums to 1; -inf is a veto.
        weights_K: non-negative, sum 1; equal when absent.
        dtype: number type of the result; the members' own when absent.

    Returns:
        Log probabilities, [N, C].

    Raises:
        EnsembleError: weights or members that cannot be combined; a row whose classes are all vetoed.
    """
    check_log_probs(log_probs_KNC)
    weights = member_weights(weights_K, len(log_probs_KNC))
    counting = [k for k, weight in enumerate(weights) if weight > 0]
    dtype = dtype or log_probs_KNC.dtype
    if len(counting) == 1:  # already normalised: the member, bit for bit
        return log_probs_KNC[counting[0]].to(dtype)
    return RunningGeometric().add(log_probs_KNC, weights).result().to(dtype)


def vote(
    log_probs_KNC: Tensor, weights_K: Tensor | None = None, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Log of each class's share of the members' votes.

    A member votes for its most probable class, of equals the first. Ties between classes go to the one with
    the larger mean probability, of which one part in 10,000 is mixed in (``running.TIE_SHARE``).

    Args:
        log_probs_KNC: each row's ``exp`` sums to 1.
        weights_K: votes per member: non-negative, sum 1; equal when absent.
        dtype: number type of the result; the members' own when absent.

    Returns:
        Log probabilities, [N, C].

    Raises:
        EnsembleError: weights or members that cannot be combined.
    """
    weights = member_weights(weights_K, len(log_probs_KNC)) if log_probs_KNC.ndim else None
    return RunningVotes().add(log_probs_KNC, weights).result().to(dtype or log_probs_KNC.dtype)
