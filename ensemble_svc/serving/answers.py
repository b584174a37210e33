"""From the members' predictions to what the ensemble says, as the last part of a graph.

The same numbers as ``aggregate.decision.apply`` and ``aggregate.uncertainty`` give, without their checks: those
look at values, which a graph cannot. Sums run in float64, what comes out is float32.

Shapes: M members, N rows, C classes, T targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ensemble_svc.aggregate.calibration.isotonic import Isotonic
from ensemble_svc.aggregate.calibration.temperature import Temperature
from ensemble_svc.aggregate.calibration.variance import VarianceScale
from ensemble_svc.aggregate.calibration.vector import VectorScaling
from ensemble_svc.aggregate.decision import Decision, Pooling
from ensemble_svc.aggregate.running import TIE_SHARE
from ensemble_svc.serving.calibrated import Scaled, Stepwise, Tempered


class Classes(nn.Module):
    """Probabilities and the three entropies of each row.

    Args:
        weights: of the members in the graph's order.
    """

    weights_M11: Tensor

    def __init__(self, decision: Decision, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("weights_M11", torch.tensor(weights, dtype=torch.float64).view(-1, 1, 1))
        self.pooling: Pooling = decision.combine
        self.before: nn.Module = nn.Identity()
        self.after: nn.Module = nn.Identity()
        match decision.calibrator:
            case Temperature(before=True) as fitted:
                self.before = Tempered(fitted)
            case Temperature() as fitted:
                self.after = Tempered(fitted)
            case VectorScaling() as fitted:
                self.after = Scaled(fitted)
            case Isotonic() as fitted:
                self.after = Stepwise(fitted)
            case _:
                pass

    def forward(self, members: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``probabilities`` [N, C]; ``total``, ``aleatoric`` and ``epistemic`` [N] in nats."""
        log_probs_MNC = self.before(members["log_probs"])
        wide_MNC = log_probs_MNC.double()
        mixture_NC = self._mixture(wide_MNC)
        said_NC = self.after(self._pooled(wide_MNC, mixture_NC).to(log_probs_MNC.dtype)).double()
        aleatoric_N = (self.weights_M11[..., 0] * entropy(wide_MNC)).sum(0)
        found = {
            "probabilities": said_NC.exp(),
            "total": entropy(said_NC),
            "aleatoric": aleatoric_N,
            "epistemic": (entropy(mixture_NC) - aleatoric_N).clamp(min=0),
        }
        return {name: value.float() for name, value in found.items()}

    def _mixture(self, log_probs_MNC: Tensor) -> Tensor:
        """Log of the mean probability, relative to the largest."""
        peak_NC = log_probs_MNC.amax(0).clamp(min=torch.finfo(torch.float64).min)
        return (self.weights_M11 * (log_probs_MNC - peak_NC).exp()).sum(0).log() + peak_NC

    def _pooled(self, log_probs_MNC: Tensor, mixture_NC: Tensor) -> Tensor:
        match self.pooling:
            case "mean":
                return mixture_NC
            case "geometric":
                return (self.weights_M11 * log_probs_MNC).sum(0).log_softmax(-1)
            case "vote":
                first_MN1 = log_probs_MNC.argmax(-1, keepdim=True)
                is_first_MNC = (first_MN1 == torch.arange(log_probs_MNC.shape[-1])).double()
                votes_NC = (self.weights_M11 * is_first_MNC).sum(0)
                return (votes_NC + TIE_SHARE * (mixture_NC.exp() - votes_NC)).log()


class Numbers(nn.Module):
    """Means and the three variances of each row, in the targets' units."""

    weights_M11: Tensor

    def __init__(self, decision: Decision, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("weights_M11", torch.tensor(weights, dtype=torch.float64).view(-1, 1, 1))
        calibrator = decision.calibrator
        self.scale = calibrator if isinstance(calibrator, VarianceScale) else None

    def forward(self, members: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``mean``, ``total``, ``aleatoric`` and ``epistemic``, [N, T] each."""
        mean_MNT, log_variance_MNT = members["mean"].double(), members["log_variance"]
        if self.scale is not None:
            log_variance_MNT = self.scale.apply(log_variance_MNT)
        mean_NT = (self.weights_M11 * mean_MNT).sum(0)
        aleatoric_NT = (self.weights_M11 * log_variance_MNT.double().exp()).sum(0)
        epistemic_NT = (self.weights_M11 * (mean_MNT - mean_NT).square()).sum(0)
        found = {
            "mean": mean_NT,
            "total": aleatoric_NT + epistemic_NT,
            "aleatoric": aleatoric_NT,
            "epistemic": epistemic_NT,
        }
        return {name: value.float() for name, value in found.items()}


def entropy(log_probs: Tensor) -> Tensor:
    """In nats over the last axis; a probability of 0 counts nothing."""
    return -(log_probs.exp() * log_probs.clamp(min=-1e4)).sum(-1)
