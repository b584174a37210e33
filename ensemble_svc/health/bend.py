"""How sharply a member's loss bends where it stands, and what that says of its learning rate."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ensemble_svc.data.dataset import Array, Dataset, InputSchema
from ensemble_svc.health.checkup import ready
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.spec.optimizers import Optimizer, Sgd
from ensemble_svc.vitals.curvature import Curvature, curvature

ROWS = 500
"""Training rows on which the loss is taken."""


def bend(
    member: MemberSpec,
    dataset: Dataset,
    schema: InputSchema,
    rows: Array,
    *,
    weights: Mapping[str, Tensor] | None = None,
) -> Curvature:
    """The curvature of the member's loss on some of its training rows, penalties apart.

    Args:
        weights: of the trained member, whose batch norms then use their running statistics; those of its
            beginning when absent.
    """
    patient = ready(member, dataset, schema, rows, most=ROWS, weights=weights)
    patient.net.train(weights is None)
    trained = [weight for weight in patient.net.body.parameters() if weight.requires_grad]
    with torch.enable_grad():
        return curvature(patient.loss(patient.net.body), trained)


def edge(rule: Optimizer) -> float:
    """The sharpest curvature at which descent at the rule's rate is stable (Cohen et al., arXiv:2103.00065).

    2 / lr for plain descent, more with a momentum. Adaptive rules rescale each weight, so for them 2 / lr is
    only what plain descent at their rate could bear.
    """
    share = rule.momentum if isinstance(rule, Sgd) else 0.0
    kept = 1 + 2 * share if isinstance(rule, Sgd) and rule.nesterov else 1.0
    return 2 * (1 + share) / kept / rule.rate


def told(found: Curvature, rule: Optimizer) -> list[str]:
    """The curvature in sentences."""
    return [_place(found), _stability(found, rule)]


def _place(found: Curvature) -> str:
    slope = (
        f"gradient norm {found.gradient:.3g}, eigenvalues from {found.smallest:.3g} to {found.largest:.3g}"
    )
    match found.kind:
        case "slope":
            return f"No stationary point: the loss still falls along its gradient ({slope})."
        case "saddle":
            return (
                f"A saddle: the gradient is small and the loss bends down along some direction ({slope}). Noise leads "
                "away from it: smaller batches, momentum or a larger learning rate."
            )
        case "minimum":
            return f"A minimum, or the floor of a valley: the gradient is small and nothing bends down ({slope})."
        case "maximum":
            return f"A maximum: the gradient is small and the loss bends down along every bent direction ({slope})."
        case _:
            return f"Flat: neither a gradient nor a bend ({slope})."


def _stability(found: Curvature, rule: Optimizer) -> str:
    limit = edge(rule)
    words = f"The sharpest curvature is {found.largest:.3g}; descent at lr {rule.lr:g} is stable up to {limit:.3g}"
    if not isinstance(rule, Sgd):
        words += f" without the rescaling of {rule.name}"
    if found.largest <= 0.9 * limit:
        return f"{words}: the curvature does not limit the rate here."
    if found.largest <= 1.1 * limit:
        return f"{words}: it stands at the edge of stability, where full-batch descent tends to settle."
    advice = "lower training.optimizer.lr" if isinstance(rule, Sgd) else "its rescaling must make up for it"
    return (
        f"{words}: steps along it overshoot and grow; {advice}, or begin with a warm-up (training.schedule)."
    )
