"""A member as it predicts: its transform, its network, and the scale of its target.

Shapes: B rows, O outputs, T targets; a leading K where K members are stacked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

SCALES = ("target_mean", "target_scale", "noise_log_variance")
"""Names of what leads a prediction back to the target's units, [T] each."""
TASK_SCALE = "task_log_variance"
"""Name of what a member learns of how much each of its tasks counts, [T]."""


class MemberNet(nn.Module):
    """Raw rows in, network outputs out.

    For regression the network works on a standardised target; ``target_mean`` and ``target_scale``
    [T] lead back, and ``noise_log_variance`` [T] is the spread of a network that gives a mean alone.

    Args:
        transform: from raw rows to what the network reads; has no parameters.
        body: the network.
        num_targets: T for numbers and for several tasks, 0 for a class.
        scaled: whether it learns the log variance of each of its T tasks (``nn.tasks``).
    """

    transform: nn.Module
    body: nn.Module
    target_mean: Tensor
    target_scale: Tensor
    noise_log_variance: Tensor

    def __init__(
        self, transform: nn.Module, body: nn.Module, num_targets: int, *, scaled: bool = False
    ) -> None:
        super().__init__()
        self.transform = transform
        self.body = body
        if num_targets:
            self.register_buffer("target_mean", torch.zeros(num_targets))
            self.register_buffer("target_scale", torch.ones(num_targets))
            self.register_buffer("noise_log_variance", torch.zeros(num_targets))
        if scaled:
            self.register_parameter(TASK_SCALE, nn.Parameter(torch.zeros(num_targets)))

    def forward(self, x_B: Tensor) -> Tensor:
        return cast(Tensor, self.body(self.transform(x_B)))


def scales(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What of a network's weights leads its predictions back to the target's units."""
    return {name: weights[name] for name in SCALES if name in weights}


def in_target_units(prediction: Mapping[str, Tensor], weights_K: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stacked predictions on the standardised scale, led back to the target's own.

    Args:
        prediction: ``log_probs`` [K, B, C], which pass unchanged, or ``mean`` [K, B, T] with or
            without ``log_variance``; without, the members' ``noise_log_variance`` stands in.
        weights_K: the members' stacked weights and buffers.
    """
    if "mean" not in prediction:
        return dict(prediction)
    scale_K1T = weights_K["target_scale"].unsqueeze(1)
    mean = prediction["mean"] * scale_K1T + weights_K["target_mean"].unsqueeze(1)
    noise = weights_K["noise_log_variance"].unsqueeze(1).expand_as(mean)
    log_variance = prediction.get("log_variance", noise) + 2 * scale_K1T.log()
    return {"mean": mean, "log_variance": log_variance}
