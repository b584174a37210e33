"""What is shown of a classifier: which rows to trust, what is mistaken for what, which rows it knows least.

Shapes: K members, N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ensemble_svc.aggregate.decision import Decision, apply
from ensemble_svc.aggregate.uncertainty import entropy
from ensemble_svc.evaluate.reliability import reliability
from ensemble_svc.exhibits.risk import Ranked, risk, some_of
from ensemble_svc.exhibits.said import Said, pieces

CLASSES = 25
"""Classes of the confusion matrix at most; of more those that are mistaken most often."""
ROWS = 12
"""Rows shown of a kind."""
MISTAKES = 12
"""Pairs of classes named at most."""


def shown_of(decision: Decision, members: Said, target_N: Tensor, *, bins: int) -> dict[str, Any]:
    """Everything that is shown of the ensemble's classes on some rows.

    Args:
        members: the chosen ones', in the decision's order.

    Returns:
        ``risk`` of the error rate (``risk.risk``), ``confusion``, ``rows``; and where it is calibrated
        ``reliability_before``, the bins without the calibration.
    """
    log_probs_NC = _applied(decision, members)
    each = [members["log_probs"][k] for k in range(len(decision.members))]
    some = [each[k] for k in some_of(len(each))]
    found = {
        "risk": risk(_ranked(log_probs_NC, target_N), (_ranked(own, target_N) for own in some)),
        "confusion": confusion(log_probs_NC.argmax(1), target_N, log_probs_NC.shape[1]),
        "rows": rows(log_probs_NC, (own_NC.argmax(1) for own_NC in each), target_N),
    }
    if decision.calibration is not None:
        raw = decision.model_copy(update={"calibration": None})
        found["reliability_before"] = reliability(_applied(raw, members), target_N, bins=bins)
    return found


def _applied(decision: Decision, members: Said) -> Tensor:
    """Log probabilities of the ensemble, [N, C]."""
    return torch.cat([apply(decision, some)["log_probs"] for _, some in pieces(members)])


def _ranked(log_probs_NC: Tensor, target_N: Tensor) -> Ranked:
    confidence_N, said_N = log_probs_NC.double().max(dim=1)
    return (said_N != target_N).double(), -confidence_N


def confusion(said_N: Tensor, target_N: Tensor, num_classes: int) -> dict[str, Any]:
    """True against predicted class.

    Returns:
        ``classes``: numbers of those shown, ``of`` how many there are; ``counts`` [true][predicted]: rows, with a last
        line and column for all other classes where some are left out; ``mistakes``: the most frequent as
        [true, predicted, rows], over all classes.
    """
    mixed_N = target_N[said_N != target_N] * num_classes + said_N[said_N != target_N]
    pair_P, count_P = mixed_N.unique(return_counts=True)
    order = count_P.argsort(descending=True, stable=True)[:MISTAKES]
    mistakes = [[*divmod(pair_P[p].item(), num_classes), count_P[p].item()] for p in order.tolist()]
    kept = _kept(pair_P, count_P, num_classes)
    place_C = torch.full((num_classes,), len(kept))
    place_C[torch.tensor(kept)] = torch.arange(len(kept))
    side = len(kept) + (len(kept) < num_classes)
    cells = torch.bincount(place_C[target_N] * side + place_C[said_N], minlength=side * side)
    counts = cells.reshape(side, side).tolist()
    return {"classes": kept, "of": num_classes, "counts": counts, "mistakes": mistakes}


def _kept(pair_P: Tensor, count_P: Tensor, num_classes: int) -> list[int]:
    if num_classes <= CLASSES:
        return list(range(num_classes))
    mixed_C = torch.zeros(num_classes, dtype=torch.long)
    mixed_C.scatter_add_(0, pair_P // num_classes, count_P).scatter_add_(0, pair_P % num_classes, count_P)
    return sorted(mixed_C.argsort(descending=True, stable=True)[: CLASSES - 1].tolist())


def rows(
    log_probs_NC: Tensor, said_by: Iterable[Tensor], target_N: Tensor
) -> dict[str, list[dict[str, Any]]]:
    """The rows that the ensemble doubts most, and those that it has wrong while it is surest.

    Args:
        said_by: of each member the classes that it says, [N].

    Returns:
        ``doubtful`` by entropy and ``wrong`` by confidence, the first ones first: position, truth and said (class
        numbers), confidence, truth_probability, entropy in nats, and agree, how many of the members say the same.
    """
    probs_NC = log_probs_NC.double().exp()
    confidence_N, said_N = probs_NC.max(dim=1)
    doubt_N = entropy(log_probs_NC[None])
    agree_N = torch.zeros_like(said_N)
    for own_N in said_by:
        agree_N += own_N == said_N

    def fact(n: int) -> dict[str, Any]:
        return {
            "position": n,
            "truth": int(target_N[n]),
            "said": int(said_N[n]),
            "confidence": float(confidence_N[n]),
            "truth_probability": float(probs_NC[n, target_N[n]]),
            "entropy": float(doubt_N[n]),
            "agree": int(agree_N[n]),
        }

    doubtful = doubt_N.argsort(descending=True, stable=True)[:ROWS]
    surest = torch.where(said_N != target_N, confidence_N, -1.0).argsort(descending=True, stable=True)[:ROWS]
    wrong = [n for n in surest.tolist() if said_N[n] != target_N[n]]
    return {"doubtful": [fact(n) for n in doubtful.tolist()], "wrong": [fact(n) for n in wrong]}
