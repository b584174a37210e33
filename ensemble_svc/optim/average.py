"""Averages of weights that are taken in one after another: moving without a starting bias, and the plain mean.

Shapes: K members.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

Number = TypeVar("Number", float, Tensor)


@torch.no_grad()
def ema_update(
    average: Mapping[str, Tensor], weights: Mapping[str, Tensor], decay_K: Tensor | float, num_updates: int
) -> None:
    """Take ``weights`` into ``average``, in place.

    After t updates the average is the mean of the t weights so far, the one from i updates ago
    counting ``decay**i``: the first update copies, and nothing of the starting values remains.
    Integers (counters) are copied.

    Args:
        average: tensors by name, [K, …] when ``decay_K`` is a tensor.
        weights: as ``average``; may hold more names.
        decay_K: share kept per update, in (0, 1), one for all or one per member.
        num_updates: number of this update, from 1.
    """
    floats = [name for name, value in average.items() if value.is_floating_point()]
    for name in average.keys() - set(floats) if num_updates > 1 else average:
        average[name].copy_(weights[name])
    if num_updates == 1 or not floats:
        return
    old, new = [average[n] for n in floats], [weights[n] for n in floats]
    if isinstance(decay_K, Tensor):
        share_K = _share(decay_K.double(), num_updates)
        torch._foreach_lerp_(old, new, [_along_members(share_K, value) for value in old])
    else:
        torch._foreach_lerp_(old, new, _share(decay_K, num_updates))


@torch.no_grad()
def mean_update(
    average: Mapping[str, Tensor], weights: Mapping[str, Tensor], share_K: Tensor | float
) -> None:
    """Take ``weights`` into the mean ``average``, in place: ``average += share (weights - average)``.

    With shares 1, 1/2, 1/3, … it is the mean of all weights so far. Its floats should be float64, for in
    float32 a change is lost once it is less than 1e-7 of the mean, so after some 1e5 of them. A share of 1
    copies, one of 0 leaves as it is. Integers (counters) are copied, unless the share is 0.

    Args:
        average: tensors by name, [K, …] when ``share_K`` is a tensor; in a float type of their own.
        weights: as ``average``; may hold more names.
        share_K: in [0, 1], one for all or one per member.
    """
    for name, old in average.items():
        new = weights[name].to(old.dtype)
        share = share_K if isinstance(share_K, float | int) else _along_members(share_K.double(), old)
        if old.is_floating_point():
            old.lerp_(new, share if isinstance(share, Tensor) else float(share))
        else:
            old.copy_(torch.where(torch.as_tensor(share, device=old.device) > 0, new, old))


def _share(decay: Number, num_updates: int) -> Number:
    """Weight of the newest value among ``num_updates``."""
    return (1 - decay) / (1 - decay**num_updates)


def _along_members(share_K: Tensor, value: Tensor) -> Tensor:
    """``share_K`` in the rank of ``value``, and in its type where that is one of floats, to broadcast over it."""
    share_K = share_K.to(value) if value.is_floating_point() else share_K.to(value.device)
    return share_K.view(-1, *[1] * (value.dim() - 1))
