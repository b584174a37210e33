"""The usual metrics of classes in one pass over the probabilities: sums by group of rows.

What ``metrics.METRICS`` says of each row, metric by metric, takes the exponential and the largest class anew each time
and spreads the calibration error over as many columns as it has bins. Law: the sums are those.

Shapes: N rows, C classes, G groups, B bins; S statistics of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ensemble_svc.evaluate.binning import cells

KNOWN = frozenset({"accuracy", "nll", "brier", "ece"})


def group_sums(
    names: Sequence[str], log_probs_NC: Tensor, target_N: Tensor, group_N: Tensor, *, groups: int, bins: int
) -> tuple[list[int], Tensor]:
    """Sums of what each row contributes to the metrics, [G, S] float64, and how many columns each metric has.

    Args:
        names: of ``KNOWN``.
    """
    probs_NC = log_probs_NC.double().exp()
    confidence_N, predicted_N = probs_NC.max(dim=1)
    right_N = (predicted_N == target_N).double()

    def summed(values_N: Tensor) -> Tensor:
        return torch.bincount(group_N, weights=values_N, minlength=groups)

    parts: list[Tensor] = []
    for name in names:
        if name == "accuracy":
            parts.append(summed(right_N)[:, None])
        elif name == "nll":
            nll_N = -log_probs_NC.gather(1, target_N[:, None].long())[:, 0].double()
            infinite_N = nll_N.isposinf()
            finite_N = nll_N.masked_fill(infinite_N, 0)
            parts.append(torch.stack([summed(finite_N), summed(infinite_N.double())], dim=1))
        elif name == "ece":
            gap_N = confidence_N.clamp(max=1) - right_N
            at_N = group_N * (bins + 1) + cells(confidence_N, bins)
            gaps = torch.bincount(at_N, weights=gap_N, minlength=groups * (bins + 1))
            parts.append(gaps.view(groups, bins + 1))
    if "brier" in names:
        probs_NC[torch.arange(len(probs_NC)), target_N.long()] -= 1
        squared = summed(probs_NC.square_().sum(dim=1))[:, None]
        parts.insert(list(names).index("brier"), squared)
    return [part.shape[1] for part in parts], torch.cat(parts, dim=1)
