"""Penalties on the hidden activations of a step's members, each by its own strength.

Shapes: K members, B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ensemble_svc.nn.sparsity import listen, penalty_K, take
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.spec.regularizers import Sparsity


class Term(NamedTuple):
    """One penalty with the members' options."""

    kind: Literal["l1", "kl"]
    strength_K: Tensor
    target_K: Tensor


class Sparse:
    """What is added to the losses of K members; nothing is kept or computed where all strengths are 0.

    Args:
        net: whose taps see the members' activations.
    """

    def __init__(self, members: Sequence[MemberSpec], net: nn.Module, device: torch.device) -> None:
        self.terms = terms_of(members, device)
        self.taps = listen(net, keeps=bool(self.terms))

    def penalty_K(self, weight_KB: Tensor | None, *, member: int | None = None) -> Tensor | float:
        """The penalties [K] on the forward pass that was just made, once.

        Args:
            weight_KB: how much each row counts.
            member: position of the only member that went through; its activations have no K in front.
        """
        activations = take(self.taps)
        total: Tensor | float = 0.0
        for kind, strength_K, target_K in self.terms:
            if member is not None:
                strength_K, target_K = strength_K[member : member + 1], target_K[member : member + 1]
            stacked = activations if member is None else [x.unsqueeze(0) for x in activations]
            total = total + strength_K * penalty_K(kind, stacked, target_K, weight_KB)
        return total


def is_sparse(members: Sequence[MemberSpec]) -> bool:
    """Whether some member's hidden activations are penalised."""
    return bool(terms_of(members, torch.device("cpu")))


def terms_of(members: Sequence[MemberSpec], device: torch.device) -> tuple[Term, ...]:
    """The penalties that have a strength above 0 for some member."""
    found = []
    for each in zip(*(member.training.regularizers for member in members), strict=True):
        rules = [rule for rule in each if isinstance(rule, Sparsity)]
        if any(rule.strength for rule in rules):
            strengths = torch.tensor([rule.strength for rule in rules], device=device)
            targets = torch.tensor([rule.target for rule in rules], device=device)
            found.append(Term(rules[0].kind, strengths, targets))
    return tuple(found)
