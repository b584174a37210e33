"""Doubts of an ensemble by row: scores by which rows from elsewhere are told from the usual ones.

Shapes: K members, N rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ensemble_svc.aggregate.decision import Decision, apply
from ensemble_svc.aggregate.uncertainty import entropy, expected_entropy, mutual_information, variance
from ensemble_svc.nn.tasks import part_of
from ensemble_svc.predictor import Ensemble

Doubts = dict[str, dict[str, Tensor]]
"""By task (the empty name of a lone one) → by score: ``<score>`` [N] of the ensemble, ``<score>/members`` [K, N]."""


def doubts_of(decision: Decision, members: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scores of rows, larger where the ensemble is less sure.

    Of classes ``max_probability`` (1 minus it), ``entropy``, ``expected_entropy``, ``mutual_information`` and, where it
    is known, ``energy``, the members' mean; of numbers ``total``, ``aleatoric`` and ``epistemic`` variance, mean over
    the targets. What one member has of its own is there
    under ``<score>/members`` too.

    Args:
        members: the chosen ones', in the decision's order.
    """
    weights_K = torch.tensor(decision.weights, dtype=torch.float64)
    if "log_probs" in members:
        log_probs_KNC, together_NC = members["log_probs"], apply(decision, members)["log_probs"]
        found = {
            "max_probability": _unsure(together_NC),
            "max_probability/members": _unsure(log_probs_KNC),
            "entropy": entropy(together_NC[None]).float(),
            "entropy/members": torch.stack([entropy(one_NC[None]).float() for one_NC in log_probs_KNC]),
            "expected_entropy": expected_entropy(log_probs_KNC, weights_K).float(),
            "mutual_information": mutual_information(log_probs_KNC, weights_K).float(),
        }
        return found | (_energy(members["energy"], weights_K) if "energy" in members else {})
    parts = variance(members["mean"], members["log_variance"], weights_K)._asdict()
    found = {name: value.mean(dim=-1).float() for name, value in parts.items()}
    return found | {"total/members": members["log_variance"].double().exp().mean(dim=-1).float()}


def _energy(energy_KN: Tensor, weights_K: Tensor) -> dict[str, Tensor]:
    return {"energy": (weights_K @ energy_KN.double()).float(), "energy/members": energy_KN}


def _unsure(log_probs: Tensor) -> Tensor:
    return (1 - log_probs.double().amax(dim=-1).exp()).float()


def by_parts(ensemble: Ensemble, members: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The members' predictions task by task; of one task under the empty name."""
    if not ensemble.tasks:
        return {"": dict(members)}
    return {task: part_of(members, task) for task in ensemble.tasks}


def add_doubts(known: Doubts, ensemble: Ensemble, members: Mapping[str, Tensor]) -> Doubts:
    """What is known of earlier rows, and these."""
    found = {t: doubts_of(ensemble.decision.of(t), part) for t, part in by_parts(ensemble, members).items()}
    return joined_doubts(known, found)


def joined_doubts(known: Doubts, more: Doubts) -> Doubts:
    """Of the rows of both, in this order."""
    if not known or not more:
        return known or more
    return {
        task: {n: torch.cat([known[task][n], value], dim=-1) for n, value in own.items()}
        for task, own in more.items()
    }
