"""The forward pass of K stacked members in evaluation mode (no Lightning here).

Shapes: K members, N rows, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ensemble_svc.nn import packed
from ensemble_svc.nn.heads import to_prediction
from ensemble_svc.nn.masks import dropping
from ensemble_svc.nn.member import MemberNet, in_target_units
from ensemble_svc.nn.tasks import Answer, Heads
from ensemble_svc.spec.losses import CrossEntropy

CHUNK_BYTES = {"cpu": 2**22, "cuda": 2**28}
"""What the activations of one chunk of rows may take on a device, all members together, unless the caller
says. A CPU is as fast with little, which its caches hold; a GPU wants much at once."""


def outputs(
    net: nn.Module,
    weights_K: Mapping[str, Tensor],
    x_N: Tensor,
    *,
    alone: bool = False,
    budget_bytes: int | None = None,
) -> Tensor:
    """Outputs [K, N, O] of K members on the same rows; the net's mode is left as evaluation.

    Args:
        weights_K: the parameters and buffers of ``net`` by name, stacked over K.
        alone: run the members one after another, as networks of convolutions do on a CPU anyway.
        budget_bytes: memory for the activations of the rows that are in work at one time.
    """
    net.eval()

    def call(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(net, dict(weights), (x,))  # type: ignore[no-any-return]

    num_members = next(iter(weights_K.values())).shape[0]
    with torch.no_grad():
        budget = budget_bytes or CHUNK_BYTES.get(x_N.device.type, CHUNK_BYTES["cpu"])
        row_bytes = activation_bytes(net, _slice(weights_K, 0), x_N)
        if alone or num_members == 1 or packed.goes_in_turn(net, x_N.device):
            each = [_slice(weights_K, k) for k in range(num_members)]
            pieces = [[call(w, x) for x in chunks(x_N, row_bytes, budget)] for w in each]
            return torch.stack([torch.cat(piece) for piece in pieces])
        known = packed.is_known(net.body if isinstance(net, MemberNet) else net)
        together = _written_out(net, weights_K) if known else vmap(call, (0, None), randomness="error")
        some = chunks(x_N, row_bytes * num_members, budget)
        return torch.cat([together(dict(weights_K), x) for x in some], dim=1)


def _written_out(
    net: nn.Module, weights_K: Mapping[str, Tensor]
) -> Callable[[Mapping[str, Tensor], Tensor], Tensor]:
    num_members = next(iter(weights_K.values())).shape[0]
    if not isinstance(net, MemberNet):
        return lambda weights_K, x: packed.forward(net, weights_K, x.expand(num_members, *x.shape))
    transform_K, body_K = (_part(weights_K, name) for name in ("transform.", "body."))
    prepared = _prepared(net.transform, transform_K, num_members)
    return lambda _, x: packed.forward(net.body, body_K, prepared(x))


def _prepared(
    transform: nn.Module, weights_K: Mapping[str, Tensor], num_members: int
) -> Callable[[Tensor], Tensor]:
    """From raw rows [B, …] to what each member's network reads [K, B, …]; once where all prepare rows alike."""
    if all(torch.equal(value, value[:1].expand_as(value)) for value in weights_K.values()):
        own = deepcopy(transform)
        own.load_state_dict(_slice(weights_K, 0), strict=False)

        def once(x: Tensor) -> Tensor:
            found: Tensor = own(x)
            return found.expand(num_members, *found.shape)

        return once

    def call(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(transform, dict(weights), (x,))  # type: ignore[no-any-return]

    each = vmap(call, (0, None), randomness="error")
    return lambda x: each(dict(weights_K), x)


def _part(weights_K: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights_K.items() if name.startswith(prefix)}


def predict(
    net: nn.Module,
    weights_K: Mapping[str, Tensor],
    loss: Answer,
    x_N: Tensor,
    *,
    scale_K: Mapping[str, Tensor],
    alone: bool = False,
    energy: bool = False,
) -> dict[str, Tensor]:
    """Predictions of K members: ``log_probs`` [K, N, C], or ``mean`` and ``log_variance`` [K, N, T].

    Of several tasks each key begins with the task's name and a slash.

    Args:
        scale_K: the stacked buffers that lead a regression back to the target's units.
        energy: whether to add ``energy`` [K, N] of classes, as ``energies``.
    """
    found = outputs(net, weights_K, x_N, alone=alone).float()
    return _said(loss, found, scale_K) | (energies(loss, found) if energy else {})


def energies(loss: Answer, outputs: Tensor) -> dict[str, Tensor]:
    """``energy`` [K, N]: minus the log-sum-exp of the logits (Liu et al. 2020, arXiv:2010.03759), which log
    probabilities have lost; of each task with classes, and none of numbers."""
    if isinstance(loss, Heads):
        own = {head.name: energies(head.loss, head.outputs(outputs)) for head in loss.each}
        return {f"{name}/{key}": value for name, found in own.items() for key, value in found.items()}
    return {"energy": -outputs.logsumexp(-1)} if isinstance(loss, CrossEntropy) else {}


def _said(loss: Answer, outputs: Tensor, scale_K: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if isinstance(loss, Heads):
        return loss.predict(outputs, scale_K)
    return in_target_units(to_prediction(loss, outputs), scale_K)


def predict_dropped(
    net: nn.Module,
    weights_K: Mapping[str, Tensor],
    loss: Answer,
    x_N: Tensor,
    *,
    scale_K: Mapping[str, Tensor],
    draws: Sequence[tuple[int, int]],
    energy: bool = False,
) -> dict[str, Tensor]:
    """Predictions [S, N, …] of members with dropout drawn once for all rows, whatever pieces these come in.

    Args:
        draws: a member's position and the seed of its draw, for each of S.
        energy: as ``predict``.
    """
    found = torch.stack([_dropped(net, _slice(weights_K, k), x_N, seed) for k, seed in draws]).float()
    scale_S = {name: value[[k for k, _ in draws]] for name, value in scale_K.items()}
    return _said(loss, found, scale_S) | (energies(loss, found) if energy else {})


def _dropped(net: nn.Module, weights: Mapping[str, Tensor], x_N: Tensor, seed: int) -> Tensor:
    """Outputs [N, O] of one member with dropout drawn from a seed."""
    net.eval()
    budget = CHUNK_BYTES.get(x_N.device.type, CHUNK_BYTES["cpu"])
    with torch.no_grad():
        row_bytes = activation_bytes(net, weights, x_N)
        with dropping(net, seed) as begin:
            found = []
            for x in chunks(x_N, row_bytes, budget):
                begin()
                found.append(functional_call(net, dict(weights), (x,)))
    return torch.cat(found)


def chunks(x_N: Tensor, row_bytes: int, budget_bytes: int) -> Iterator[Tensor]:
    """Rows in pieces of which each takes at most the budget, or one row; one empty piece for no rows."""
    return iter(x_N.split(max(1, budget_bytes // max(1, row_bytes))))


def activation_bytes(net: nn.Module, weights: Mapping[str, Tensor], x_N: Tensor) -> int:
    """What one member's activations of one row take at most at one time: tried on a row.

    A layer's output stands beside its input, so it is the largest sum of two that follow each other.
    """
    if not len(x_N):
        return 0
    sizes = [x_N[0].numel() * x_N.element_size()]

    def note(_: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel() * output.element_size())

    leaves = [module for module in net.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(note) for module in leaves]
    try:
        functional_call(net, dict(weights), (x_N[:1],))
    finally:
        for hook in hooks:
            hook.remove()
    return max(map(sum, pairwise(sizes)), default=sizes[0])


def _slice(weights_K: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    return {name: weight[k] for name, weight in weights_K.items()}
