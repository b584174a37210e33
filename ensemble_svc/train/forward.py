"""The forward pass of K stacked members in evaluation mode (no Lightning here).

Shapes: K members, N rows, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ensemble_svc.nn.heads import to_prediction
from ensemble_svc.nn.member import in_target_units
from ensemble_svc.spec.training import CrossEntropy, GaussianNll, Mse

CHUNK_FLOATS = 2**24
"""Input and activation numbers of one chunk, roughly; bounds the memory of a forward pass."""


def outputs(net: nn.Module, weights_K: Mapping[str, Tensor], x_N: Tensor, *, alone: bool = False) -> Tensor:
    """Outputs [K, N, O] of K members on the same rows; the net's mode is left as evaluation.

    Args:
        weights_K: the parameters and buffers of ``net`` by name, stacked over K.
        alone: run the members one after another instead of under vmap.
    """
    net.eval()

    def call(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(net, dict(weights), (x,))  # type: ignore[no-any-return]

    num_members = next(iter(weights_K.values())).shape[0]
    with torch.no_grad():
        if alone or num_members == 1:
            each = [_slice(weights_K, k) for k in range(num_members)]
            return torch.stack([torch.cat([call(w, x) for x in chunks(x_N, 1)]) for w in each])
        packed = vmap(call, in_dims=(0, None), randomness="error")
        return torch.cat([packed(dict(weights_K), x) for x in chunks(x_N, num_members)], dim=1)


def predict(
    net: nn.Module,
    weights_K: Mapping[str, Tensor],
    loss: CrossEntropy | GaussianNll | Mse,
    x_N: Tensor,
    *,
    scale_K: Mapping[str, Tensor],
    alone: bool = False,
) -> dict[str, Tensor]:
    """Predictions of K members: ``log_probs`` [K, N, C], or ``mean`` and ``log_variance`` [K, N, T].

    Args:
        scale_K: the stacked buffers that lead a regression back to the target's units.
    """
    return in_target_units(to_prediction(loss, outputs(net, weights_K, x_N, alone=alone)), scale_K)


def chunks(x_N: Tensor, num_members: int) -> Iterator[Tensor]:
    """Rows in pieces whose work for all members fits the memory bound; one empty piece for no rows."""
    per_row = max(1, x_N[0].numel() if len(x_N) else 1) * num_members * 16
    return iter(x_N.split(max(1, CHUNK_FLOATS // per_row)))


def _slice(weights_K: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    return {name: weight[k] for name, weight in weights_K.items()}
