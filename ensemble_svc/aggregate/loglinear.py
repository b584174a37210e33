"""A blend in log space: exponents fitted to the members' log probabilities (logistic stacking).

The blend is softmax(sum over k of a_k log p_k): the geometric mean with fitted, unnormalised weights. Equal
exponents 1/K give the plain geometric mean; a sum above 1 sharpens, below 1 softens, so it calibrates too. The
negative log likelihood is convex in the exponents, which may be negative, and Newton's method with halved
steps finds its one minimum under the pull toward 1/K.

Laws: on the rows of the fit it is never worse than the geometric mean; one member's exponent is 1 / T of its
own temperature.

Shapes: K members, N held-out rows, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble_svc.aggregate.calibration.targets import check_classes
from ensemble_svc.aggregate.checks import check_log_probs
from ensemble_svc.errors import EnsembleError

FLOOR = -100.0
"""Least log probability: a blend in log space cannot use -inf."""
MAX_STEPS, TOLERANCE = 100, 1e-12
BLOCK_ROWS = 8192


@dataclass(frozen=True)
class LogLinear:
    """Fitted exponents."""

    exponents: tuple[float, ...]
    """One per member."""
    loss: float
    """Negative log likelihood of the held-out rows, in nats per row, without the pull."""

    def apply(self, log_probs_KNC: Tensor) -> Tensor:
        """Log probabilities of the blend, [N, C], in the members' type.

        Raises:
            EnsembleError: another number of members, or members that are no distributions.
        """
        check_log_probs(log_probs_KNC)
        if len(log_probs_KNC) != len(self.exponents):
            raise EnsembleError(
                f"there are {len(log_probs_KNC)} members; the blend is of {len(self.exponents)}."
            )
        total_NC = torch.zeros_like(log_probs_KNC[0], dtype=torch.float64)
        for exponent, member_NC in zip(self.exponents, log_probs_KNC, strict=True):
            total_NC.add_(member_NC.double().clamp(min=FLOOR), alpha=exponent)
        return total_NC.log_softmax(dim=-1).to(log_probs_KNC.dtype)


def fit_log_linear(log_probs_KNC: Tensor, target_N: Tensor, *, pull_rows: float = 1.0) -> LogLinear:
    """The exponents that give held-out rows the greatest likelihood.

    Args:
        pull_rows: weight of the squared distance from 1/K, against that of one row; above 0, so that the minimum
            is one even where members are copies or every row is right.

    Raises:
        EnsembleError: members and targets that do not belong together; a pull that is not above 0.
    """
    check_log_probs(log_probs_KNC)
    check_classes(log_probs_KNC[0], target_N)
    if not 0 < pull_rows < torch.inf:
        raise EnsembleError(f"pull_rows is {pull_rows}; it is a finite number above 0.")
    num_members, num_rows = log_probs_KNC.shape[:2]
    centre_K = torch.full((num_members,), 1 / num_members, dtype=torch.float64)
    pull, a_K = pull_rows / num_rows, centre_K
    loss, slope_K, curvature_KK = _expand(log_probs_KNC, target_N, a_K)
    for _ in range(MAX_STEPS):
        slope_K = slope_K + 2 * pull * (a_K - centre_K)
        curvature_KK = curvature_KK + 2 * pull * torch.eye(num_members, dtype=torch.float64)
        step_K = torch.linalg.solve(curvature_KK, slope_K)
        if slope_K @ step_K < TOLERANCE:
            break
        value = loss + pull * (a_K - centre_K).square().sum().item()
        for halving in range(40):
            moved_K = a_K - 0.5**halving * step_K
            expanded = _expand(log_probs_KNC, target_N, moved_K)
            if expanded[0] + pull * (moved_K - centre_K).square().sum().item() < value:
                break
        else:
            break
        a_K, (loss, slope_K, curvature_KK) = moved_K, expanded
    return LogLinear(tuple(a_K.tolist()), loss)


def _expand(log_probs_KNC: Tensor, target_N: Tensor, a_K: Tensor) -> tuple[float, Tensor, Tensor]:
    """Loss, its slope and its curvature at these exponents, a block of rows at a time."""
    num_members, num_rows = log_probs_KNC.shape[:2]
    loss, slope_K = 0.0, torch.zeros(num_members, dtype=torch.float64)
    curvature_KK = torch.zeros(num_members, num_members, dtype=torch.float64)
    blocks = zip(log_probs_KNC.split(BLOCK_ROWS, dim=1), target_N.split(BLOCK_ROWS), strict=True)
    for block_KnC, target_n in blocks:
        block_KnC = block_KnC.double().clamp(min=FLOOR).cpu()
        truth_n1 = target_n.long().cpu()[:, None]
        blend_nC = torch.einsum("k,knc->nc", a_K, block_KnC).log_softmax(dim=-1)
        probs_nC = blend_nC.exp()
        mean_Kn = (block_KnC * probs_nC).sum(dim=-1)
        truth_Kn = torch.stack([member_nC.gather(1, truth_n1)[:, 0] for member_nC in block_KnC])
        loss -= blend_nC.gather(1, truth_n1).sum().item()
        slope_K += (mean_Kn - truth_Kn).sum(dim=1)
        centred_KX = ((block_KnC - mean_Kn[..., None]) * probs_nC.sqrt()).flatten(1)
        curvature_KK += centred_KX @ centred_KX.T
    return loss / num_rows, slope_K / num_rows, curvature_KK / num_rows
