"""Whether the truth is among the few classes thought likeliest.

Shapes: N examples, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ensemble_svc.errors import EnsembleError
from ensemble_svc.evaluate.checks import check_prediction


def top_k_accuracy(log_probs_NC: Tensor, target_N: Tensor, k: int = 5) -> float:
    """Share of the rows whose true class is among the k most probable, of equals the first; 1 where k >= C.

    Raises:
        EnsembleError: predictions and targets that do not belong together; k below 1.
    """
    check_prediction("classification", {"log_probs": log_probs_NC}, target_N, who="the prediction")
    if k < 1:
        raise EnsembleError(f"k is {k}; it must be at least 1.")
    truth_N1 = log_probs_NC.gather(1, target_N[:, None].long())
    earlier_NC = torch.arange(log_probs_NC.shape[1], device=target_N.device) < target_N[:, None]
    ahead_N = ((log_probs_NC > truth_N1) | ((log_probs_NC == truth_N1) & earlier_NC)).sum(dim=1)
    return (ahead_N < k).double().mean().item()
