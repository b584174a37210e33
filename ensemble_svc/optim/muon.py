"""Muon's step of hidden weights: along their momentum with its singular values brought near 1.

torch.optim.Muon iterates in bfloat16 and takes one matrix at a time. Here the numbers keep their type, so that
packed members equal members alone, and all matrices of one shape, of all members and layers, go through the
iteration together. They are padded with 0, which the iteration keeps, to full vectors: a matrix is
rounded alike wherever it stands.

Laws: a slice's bits do not depend on the other members; a step is that of torch.optim.Muon up to bfloat16.
Shapes: K members, M matrices of one shape, O outputs, I inputs of a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble_svc.optim.blocks import VECTOR_BYTES
from ensemble_svc.spec.optimizers import Muon

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the odd quintic whose repetition brings singular values from (0, 1] to about 0.7 to 1.2 (Jordan et al. 2024)."""
EPS = 1e-7
"""Least norm by which a matrix is divided."""


def orthogonalised(matrices_MOI: Tensor, num_steps: int) -> Tensor:
    """Each matrix with its singular vectors, and singular values near 1, by Newton-Schulz iteration.

    x → a x + (b g + c g²) x with g = x xᵀ, begun at the matrix over its Frobenius norm.
    """
    is_tall = matrices_MOI.shape[1] > matrices_MOI.shape[2]
    x = (matrices_MOI.mT if is_tall else matrices_MOI).contiguous()
    num_rows, num_columns = x.shape[1:]
    norm_M = torch.stack(torch._foreach_norm(list(x.unbind(0)))).clamp_min(EPS)
    x = _padded(x / norm_M[:, None, None])
    a, b, c = COEFFICIENTS
    for _ in range(num_steps):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x[:, :num_rows, :num_columns]
    return x.mT if is_tall else x


def scale(num_outputs: int, num_inputs: int) -> float:
    """What multiplies the step of a matrix, so that shapes that differ change their outputs alike."""
    return max(1.0, num_outputs / num_inputs) ** 0.5


@torch.no_grad()
def update_matrices(
    rules: Sequence[Muon],
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    momenta: Sequence[Tensor],
    rates: Sequence[float],
) -> None:
    """Take one step of every member's own rule, in place.

    Every operation rounds once, so it does not matter where in a vector a number stands.

    Args:
        rules: one per member, their ``ns_steps`` equal.
        params: [K, O, …]; what follows O is the inputs. ``grads`` and ``momenta`` run parallel.
        rates: each member's learning rate.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for position, param in enumerate(params):
        by_shape.setdefault(param.flatten(2).shape[1:], []).append(position)
    ahead = [_ahead(rules, grad, kept) for grad, kept in zip(grads, momenta, strict=True)]
    for (num_outputs, num_inputs), positions in by_shape.items():
        joined = torch.cat([ahead[i].flatten(2) for i in positions])
        steps = orthogonalised(joined, rules[0].ns_steps).split(len(rules))
        for i, step in zip(positions, steps, strict=True):
            _descend(rules, params[i], step, rates, scale(num_outputs, num_inputs))


class MuonStack:
    """The hidden weights of K members; the part of an optimiser that steps them.

    Args:
        params: leaves [K, O, …] by name.
        rules: one per member.
    """

    def __init__(self, params: Mapping[str, Tensor], rules: Sequence[Muon]) -> None:
        self.params, self.rules, self.num_steps = dict(params), tuple(rules), 0
        self._momenta = {name: torch.zeros_like(p, requires_grad=False) for name, p in self.params.items()}

    def step(self, factors: Sequence[float]) -> None:
        """Take one step along ``.grad``; a parameter without one is left as it is.

        Args:
            factors: what multiplies each member's learning rate.
        """
        self.num_steps += 1
        moved = {name: p.grad for name, p in self.params.items() if p.grad is not None}
        if moved:
            rates = [rule.rate * factor for rule, factor in zip(self.rules, factors, strict=True)]
            params = [self.params[name].detach() for name in moved]
            momenta = [self._momenta[name] for name in moved]
            update_matrices(self.rules, params, list(moved.values()), momenta, rates)

    def tensors(self) -> dict[str, Tensor]:
        """The live running values by ``buffer/parameter``."""
        return {f"momentum_buffer/{name}": momentum for name, momentum in self._momenta.items()}


def _ahead(rules: Sequence[Muon], grad: Tensor, kept: Tensor) -> Tensor:
    """Bring the momentum up to date; what is stepped along: it, or with Nesterov's look ahead the gradient too."""
    kept.mul_(_along([r.momentum for r in rules], kept))
    kept.add_(grad * _along([1 - r.momentum for r in rules], kept))
    share = [r.momentum if r.nesterov else 1.0 for r in rules]
    return kept * _along(share, kept) + grad * _along([1 - s for s in share], kept)


def _descend(
    rules: Sequence[Muon], param: Tensor, step_KOI: Tensor, rates: Sequence[float], scale: float
) -> None:
    decay = [1 - rate * rule.weight_decay for rate, rule in zip(rates, rules, strict=True)]
    param.mul_(_along(decay, param))
    param.sub_(step_KOI.reshape(param.shape) * _along([rate * scale for rate in rates], param))


def _along(values_K: Sequence[float], like: Tensor) -> Tensor:
    """A number per member, to broadcast over a stack; a plain one where all are equal would be rounded alike."""
    column = torch.tensor(values_K, dtype=torch.float64).to(like)
    return column.view(-1, *[1] * (like.dim() - 1))


def _padded(x: Tensor) -> Tensor:
    lanes = VECTOR_BYTES // x.element_size()
    return F.pad(x, (0, -x.shape[2] % lanes, 0, -x.shape[1] % lanes))
