"""Doubts of an ensemble by row: scores by which rows from elsewhere are told from the usual ones.

Shapes: K members, N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ensemble_svc.aggregate.decision import Decision, apply
from ensemble_svc.aggregate.uncertainty import entropy, expected_entropy, mutual_information, variance
from ensemble_svc.evaluate.pieces import SCALAR_BYTES
from ensemble_svc.nn.tasks import part_of
from ensemble_svc.predictor import Ensemble

EACH = "/members"
"""Ends the names of scores that each member has of its own."""
Part = dict[str, dict[str, Tensor]]


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


@dataclass
class Doubts:
    """Scores of the rows so far, one float32 for each row, score and prediction.

    Beyond ``SCALAR_BYTES`` those of single members are let go, then all.
    """

    rows: int = 0
    left_out: tuple[str, ...] = ()
    """What was let go: ``mean_member``, then ``scores`` too."""
    _parts: list[Part] = field(default_factory=list)
    """By task (the empty name of a lone one) and score: ``<score>`` [n] of the ensemble, ``<score>/members`` [K, n]."""
    _bytes: int = 0

    def add(self, ensemble: Ensemble, members: Mapping[str, Tensor]) -> None:
        """Take in the next rows.

        Args:
            members: the chosen ones', in the decision's order.
        """
        self.rows += next(iter(members.values())).shape[1]
        if "scores" not in self.left_out:
            parts = by_parts(ensemble, members)
            self._take([{t: doubts_of(ensemble.decision.of(t), part) for t, part in parts.items()}])

    def join(self, other: Doubts) -> None:
        """Take in another's rows, after these."""
        self.rows += other.rows
        if len(other.left_out) > len(self.left_out):
            self._leave_out(other.left_out)
        self._take(other._parts)

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """By task the ensemble's scores."""
        if not self._parts:
            return {}
        return {
            task: tuple(name for name in own if not name.endswith(EACH))
            for task, own in self._parts[0].items()
        }

    def of(self, task: str, name: str) -> Tensor | None:
        """A score of all rows, [N] or [K, N]; None where it is not known."""
        if not self._parts or name not in self._parts[0].get(task, {}):
            return None
        return torch.cat([part[task][name] for part in self._parts], dim=-1)

    def _take(self, parts: list[Part]) -> None:
        kept = _kept(parts, self.left_out)
        self._parts += kept
        self._bytes += _bytes_of(kept)
        for left_out in (("mean_member",), ("mean_member", "scores")):
            if self._bytes > SCALAR_BYTES and len(left_out) > len(self.left_out):
                self._leave_out(left_out)

    def _leave_out(self, what: tuple[str, ...]) -> None:
        self.left_out, self._parts = what, _kept(self._parts, what)
        self._bytes = _bytes_of(self._parts)


def _kept(parts: list[Part], left_out: tuple[str, ...]) -> list[Part]:
    if "scores" in left_out:
        return []
    if not left_out:
        return parts
    return [
        {task: {n: value for n, value in own.items() if not n.endswith(EACH)} for task, own in part.items()}
        for part in parts
    ]


def _bytes_of(parts: list[Part]) -> int:
    return sum(value.nbytes for part in parts for own in part.values() for value in own.values())
