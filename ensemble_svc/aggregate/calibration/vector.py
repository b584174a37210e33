"""Vector scaling: a scale and a shift of each class's log probability (Guo et al. 2017, arXiv:1706.04599).

The negative log likelihood is convex in the 2C numbers. A pull toward no change, counted in rows, keeps them
finite where a class is absent from the held-out rows or always right.

Laws: the identity changes nothing; on the rows of the fit the likelihood never falls. Predicted classes may
change, unlike by a temperature.

Shapes: N held-out rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble_svc.aggregate.calibration.targets import check_classes
from ensemble_svc.aggregate.calibration.temperature import FLOOR
from ensemble_svc.errors import EnsembleError

MAX_STEPS = 500


@dataclass(frozen=True)
class VectorScaling:
    """log_softmax(scale x log_probs + shift)."""

    scale: tuple[float, ...]
    """One per class; 1 changes nothing."""
    shift: tuple[float, ...]
    """One per class, in nats; 0 changes nothing."""

    def apply(self, log_probs: Tensor) -> Tensor:
        """Calibrated log probabilities, [..., C] of the same shape and type.

        Raises:
            EnsembleError: another number of classes.
        """
        if log_probs.shape[-1] != len(self.scale):
            raise EnsembleError(
                f"these predictions have {log_probs.shape[-1]} classes; the calibration is of {len(self.scale)}."
            )
        scale_C, shift_C = (log_probs.new_tensor(v, dtype=torch.float64) for v in (self.scale, self.shift))
        if (scale_C == 1).all() and (shift_C == 0).all():
            return log_probs
        return _scaled(log_probs.double(), scale_C, shift_C).to(log_probs.dtype)


def fit_vector(log_probs_NC: Tensor, target_N: Tensor, *, pull_rows: float = 1.0) -> VectorScaling:
    """The scales and shifts that give held-out rows the greatest likelihood.

    Solved by L-BFGS (Liu & Nocedal 1989) with a strong Wolfe search in float64, from the identity.

    Args:
        pull_rows: weight of the squared distance from the identity, against that of one row.

    Raises:
        EnsembleError: predictions and targets that do not belong together; a negative pull.
    """
    check_classes(log_probs_NC, target_N)
    if not 0 <= pull_rows < torch.inf:
        raise EnsembleError(f"pull_rows is {pull_rows}; it is a finite number from 0.")
    log_probs_NC, index_N1 = log_probs_NC.double().clamp(min=FLOOR), target_N[:, None].long()
    change_2C = torch.zeros(2, log_probs_NC.shape[1], dtype=torch.float64, device=log_probs_NC.device)
    change_2C.requires_grad_()

    def loss() -> Tensor:
        scaled_NC = _scaled(log_probs_NC, 1 + change_2C[0], change_2C[1])
        pull = pull_rows / len(index_N1) * change_2C.square().sum()
        return pull - scaled_NC.gather(1, index_N1).mean()

    with torch.enable_grad():
        _descend(change_2C, loss)
    if not loss() < -log_probs_NC.gather(1, index_N1).mean():
        change_2C = torch.zeros_like(change_2C)
    scale_C, shift_C = change_2C.detach().cpu()
    return VectorScaling(tuple((1 + scale_C).tolist()), tuple(shift_C.tolist()))


def _descend(change_2C: Tensor, loss: Callable[[], Tensor]) -> None:
    solver = torch.optim.LBFGS(
        [change_2C],
        max_iter=MAX_STEPS,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad()
        value = loss()
        value.backward()
        return value

    solver.step(closure)


def _scaled(log_probs: Tensor, scale_C: Tensor, shift_C: Tensor) -> Tensor:
    return (log_probs.clamp(min=FLOOR) * scale_C + shift_C).log_softmax(dim=-1)
