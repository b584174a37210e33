"""The exponential moving average of the weights (Polyak & Juditsky 1992), without its starting bias.

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


def _share(decay: Number, num_updates: int) -> Number:
    """Weight of the newest value among ``num_updates``."""
    return (1 - decay) / (1 - decay**num_updates)


def _along_members(share_K: Tensor, value: Tensor) -> Tensor:
    """``share_K`` in the type and rank of ``value``, to broadcast over it."""
    return share_K.to(value).view(-1, *[1] * (value.dim() - 1))
