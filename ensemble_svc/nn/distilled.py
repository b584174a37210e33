"""What a student minimises: its distance from what a teacher says of a row.

Classes: the cross-entropy of both at temperature T, times T² so that its gradient does not shrink with T (Hinton,
Vinyals & Dean 2015, arXiv:1503.02531). Numbers: the expected loss of a target that is drawn from the teacher's
Gaussian; under ``gaussian_nll`` that is their Kullback-Leibler divergence and a constant.

Law: a student that says what its teacher says has no gradient.

Shapes: K members, B rows, O outputs, C classes, T targets; ``says_B`` [B, C] or [B, 2T], as ``data.dataset.Lesson``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ensemble_svc.nn.heads import ResolvedLoss, mean_and_variance
from ensemble_svc.spec.losses import CrossEntropy, GaussianNll, Mse

SMALLEST = 1e-12


def taught_rows(
    loss: ResolvedLoss,
    outputs_BO: Tensor,
    says_B: Tensor,
    temperature: float,
    smoothing: Tensor | float | None = None,
) -> Tensor:
    """Each row's loss [B]; targets of one row are summed.

    Args:
        says_B: on the scale of the outputs.
        smoothing: as ``nn.heads.loss_rows`` takes it.
    """
    match loss:
        case CrossEntropy():
            share = loss.label_smoothing if smoothing is None else smoothing
            if isinstance(share, Tensor):
                share = share.unsqueeze(-1)
            wanted_BC = (1 - share) * says_B + share / says_B.shape[-1]
            log_probs_BC = (outputs_BO / temperature).log_softmax(-1)
            return -(temperature**2) * (wanted_BC * log_probs_BC).sum(-1)
        case GaussianNll():
            mean_BT, variance_BT = mean_and_variance(outputs_BO)
            squared_BT = _squared(says_B, mean_BT)
            return 0.5 * (math.log(2 * math.pi) + variance_BT.log() + squared_BT / variance_BT).sum(-1)
        case Mse():
            return _squared(says_B, outputs_BO).sum(-1)


def on_scale(says_KB: Tensor, scale_K: Mapping[str, Tensor]) -> Tensor:
    """Means and variances on the scale of the networks; probabilities, which have no scale, as they are."""
    if not scale_K:
        return says_KB
    centre_K1T, unit_K1T = (scale_K[name].unsqueeze(1) for name in ("target_mean", "target_scale"))
    mean_KBT, variance_KBT = says_KB.chunk(2, dim=-1)
    return torch.cat([(mean_KBT - centre_K1T) / unit_K1T, variance_KBT / unit_K1T.square()], dim=-1)


def guessing_taught(loss: ResolvedLoss, says_B: Tensor, temperature: float) -> float:
    """Mean loss of the best answer that is the same for every row, as ``vitals.guess.guessing``."""
    if isinstance(loss, CrossEntropy):
        share = loss.label_smoothing
        wanted_C = (1 - share) * says_B.double().mean(0) + share / says_B.shape[-1]
        return float(-(temperature**2) * (wanted_C * wanted_C.clamp_min(SMALLEST).log()).sum())
    mean_BT, variance_BT = says_B.double().chunk(2, dim=-1)
    whole_T = (mean_BT.var(0, correction=0) + variance_BT.mean(0)).clamp_min(SMALLEST)
    if isinstance(loss, GaussianNll):
        return float(0.5 * ((2 * math.pi * whole_T).log() + 1).sum())
    return float(whole_T.sum())


def _squared(says_B: Tensor, mean_BT: Tensor) -> Tensor:
    """Expected squared distance of the teacher's target from the mean [B, T]."""
    wanted_BT, variance_BT = says_B.chunk(2, dim=-1)
    return (wanted_BT - mean_BT).square() + variance_BT
