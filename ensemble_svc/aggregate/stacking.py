"""Weights fitted on held-out rows: which blend of the members would have predicted these rows best.

Stacking (Wolpert 1992; Breiman 1996) with weights that may not be negative and sum to 1, so the blend is
again a mixture of its members. Two losses, both convex, each with one deterministic solver in float64:

- ``by_likelihood``: greatest likelihood of the mixture, by sequential quadratic programming (Kim, Carbonetto,
  Stephens & Anitescu 2020, "mix-SQP"), stopped by a certificate: by concavity no weights have a mean log
  likelihood better by more than ``gap``.
- ``by_squared_error``: least squared error of the blend of means. As the weights sum to 1, that is w'Ew with
  E the members' error products.

Both are pulled toward equal weights, or a few rows would be fitted by luck. The fitted weights flatter
themselves on the rows they were fitted on; ``out_of_fold`` says what they are worth.

Shapes: K members, N held-out rows, C classes, D targets, F folds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble_svc.aggregate.checks import check_gaussians
from ensemble_svc.aggregate.likelihood import check_likelihood
from ensemble_svc.aggregate.quadratic import least_nonnegative
from ensemble_svc.errors import EnsembleError

TOLERANCE = 1e-8
"""Certified distance from the best objective, in nats per row, at which the solver stops."""
MAX_STEPS = 200


@dataclass(frozen=True)
class Blend:
    """Fitted weights."""

    weights: tuple[float, ...]
    """One per member, non-negative, sum 1."""
    loss: float
    """On the rows of the fit, without the pull: negative log likelihood in nats, or mean squared error."""
    gap: float
    """No weights have an objective lower by more than this; 0 for the squared error, solved exactly."""


def by_likelihood(log_likelihood_KN: Tensor, *, prior_rows: float = 0.0) -> Blend:
    """Weights whose mixture gives the held-out truths the greatest likelihood.

    Args:
        log_likelihood_KN: what each member gave each truth (``likelihood.log_likelihood``). A row that every
            member thinks impossible says nothing about the weights.
        prior_rows: pull toward equal weights, in rows: as though so many more rows had been seen, an
            equal share of them explained by each member alone (a Dirichlet prior). Above 0 no weight is 0.

    Raises:
        EnsembleError: likelihoods that are no [K, N] or NaN; a negative pull.
    """
    check_likelihood(log_likelihood_KN)
    _check_pull("prior_rows", prior_rows)
    num_members, num_rows = log_likelihood_KN.shape
    peak_N = log_likelihood_KN.amax(dim=0).double()
    relative_KN = (log_likelihood_KN.double() - peak_N).exp().nan_to_num_(nan=1.0).cpu()
    share_N = torch.full((num_rows,), 1 / (num_rows + prior_rows), dtype=torch.float64)
    rows_KN = relative_KN
    if prior_rows > 0:
        rows_KN = torch.cat([relative_KN, torch.eye(num_members, dtype=torch.float64)], dim=1)
        pseudo = prior_rows / num_members / (num_rows + prior_rows)
        share_N = torch.cat([share_N, torch.full((num_members,), pseudo, dtype=torch.float64)])
    w_K, gap = _greatest_likelihood(rows_KN, share_N)
    loss = -((w_K @ relative_KN).log() + peak_N.cpu()).mean().item()
    return Blend(tuple(w_K.tolist()), loss, gap)


def by_squared_error(mean_KND: Tensor, target_ND: Tensor, *, ridge: float = 0.0) -> Blend:
    """Weights whose blend of the means has the least squared error, mean over rows and targets.

    Args:
        ridge: pull toward equal weights: the squared distance from them counts this much of the members'
            mean squared error.

    Raises:
        EnsembleError: members that are not finite; targets of another shape; a negative pull.
    """
    check_gaussians(mean_KND, None)
    _check_pull("ridge", ridge)
    if target_ND.shape != mean_KND.shape[1:]:
        raise EnsembleError(
            f"the targets have shape {list(target_ND.shape)}; these members need {list(mean_KND.shape[1:])}."
        )
    products_KK = _error_products(mean_KND, target_ND)
    num_members, scale = len(products_KK), products_KK.diagonal().mean()
    if scale == 0:
        return Blend((1 / num_members,) * num_members, 0.0, 0.0)
    pulled_KK = products_KK / scale + ridge * torch.eye(num_members, dtype=torch.float64)
    w_K = least_nonnegative(pulled_KK, torch.ones(num_members, dtype=torch.float64))
    w_K = w_K / w_K.sum()
    return Blend(tuple(w_K.tolist()), (w_K @ products_KK @ w_K).item(), 0.0)


def out_of_fold(fit: Callable[[Tensor], Blend], fold_N: Tensor) -> tuple[Tensor, tuple[Blend, ...]]:
    """Weights for each row that were fitted without its fold, so that scoring the row by them is honest.

    Args:
        fit: from a mask of rows [N] to the blend fitted on them.
        fold_N: the fold each row belongs to, whole numbers from 0 with none left out; at least two.

    Returns:
        ``weights_KN`` [K, N] float64, each row's weights (for ``log_likelihood``'s blend: logsumexp over the
        members of log weights + log likelihoods), and the blend of each fold.

    Raises:
        EnsembleError: fewer than two folds, or one without rows.
    """
    num_folds = int(fold_N.max()) + 1 if fold_N.ndim == 1 and len(fold_N) else 0
    counts = torch.bincount(fold_N, minlength=num_folds).tolist() if num_folds > 1 else []
    if num_folds < 2 or 0 in counts:
        raise EnsembleError(
            f"the folds have {counts} rows; there must be at least two, numbered from 0, none of them empty."
        )
    blends = tuple(fit(fold_N != fold) for fold in range(num_folds))
    weights_FK = torch.tensor([blend.weights for blend in blends], dtype=torch.float64)
    return weights_FK[fold_N.cpu()].T, blends


def _greatest_likelihood(likelihood_KN: Tensor, share_N: Tensor) -> tuple[Tensor, float]:
    """Minimise -sum of shares x log(w'L) + sum of w over w >= 0, whose minimum has sum 1 by itself."""
    num_members = len(likelihood_KN)
    w_K = torch.full((num_members,), 1 / num_members, dtype=torch.float64)
    loss = _loss(w_K, likelihood_KN, share_N)
    gap = torch.inf
    for _ in range(MAX_STEPS):
        scaled_KN = likelihood_KN / (w_K @ likelihood_KN)
        gain_K = scaled_KN @ share_N
        gap = max(gain_K.max().item() - 1, 0.0)
        if gap <= TOLERANCE:
            break
        curvature_KK = (scaled_KN * share_N) @ scaled_KN.T
        goal_K = least_nonnegative(curvature_KK, gain_K - 1 + curvature_KK @ w_K)
        w_K, lower = _step(w_K, goal_K, likelihood_KN, share_N, loss)
        if lower >= loss:
            break
        loss = lower
    return w_K, gap


def _step(
    w_K: Tensor, goal_K: Tensor, likelihood_KN: Tensor, share_N: Tensor, loss: float
) -> tuple[Tensor, float]:
    """As far toward the goal, halving, as lowers the loss; where it stands if nothing does."""
    for halving in range(60):
        moved_K = w_K + 0.5**halving * (goal_K - w_K)
        if moved_K.sum() <= 0:
            continue
        moved_K = moved_K / moved_K.sum()
        lower = _loss(moved_K, likelihood_KN, share_N)
        if lower < loss:
            return moved_K, lower
    return w_K, loss


def _loss(w_K: Tensor, likelihood_KN: Tensor, share_N: Tensor) -> float:
    return -(share_N @ (w_K @ likelihood_KN).log()).item()


def _error_products(mean_KND: Tensor, target_ND: Tensor) -> Tensor:
    """Mean over rows and targets of each pair of members' errors multiplied, [K, K] float64 on the CPU."""
    rows = max(1, 4_000_000 // (mean_KND.shape[0] * mean_KND.shape[2]))
    chunks = zip(mean_KND.split(rows, dim=1), target_ND.split(rows), strict=True)
    total_KK = torch.zeros(len(mean_KND), len(mean_KND), dtype=torch.float64, device=mean_KND.device)
    for mean_KnD, target_nD in chunks:
        error_KE = (mean_KnD.double() - target_nD.double()).flatten(1)
        total_KK += error_KE @ error_KE.T
    return (total_KK / target_ND.numel()).cpu()


def _check_pull(name: str, value: float) -> None:
    if not 0 <= value < torch.inf:
        raise EnsembleError(f"{name} is {value}; it is a finite number from 0.")
