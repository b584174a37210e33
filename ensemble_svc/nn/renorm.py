"""Batch renormalisation (Ioffe 2017, arXiv:1702.03275).

With batch statistics m, s and running ones M, S: y = (x - m) / s * r + d, where r = s / S and d = (m - M) / S
are constants to the gradient, kept within [1 / R, R] and [-D, D]. Unbounded, y would be (x - M) / S, which is
what prediction computes; with R = 1 and D = 0 it is batch norm. As in torch's batch norm the running average
is that of the unbiased variance; the paper's is of the deviation.

Shapes: B rows, C channels (of one member, or of several beside each other), places behind them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ensemble_svc.spec import norms


@dataclass(frozen=True)
class Running:
    """Averages that are brought up to date in place."""

    mean_C: Tensor
    variance_C: Tensor


class BatchRenorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm whose training is led back to the running averages.

    ``num_batches_tracked``, a buffer, counts the steps that the bounds depend on. Where ``leads_back`` is
    False it is plain batch norm, as which averages are estimated anew.
    """

    def __init__(self, num_features: int, choice: norms.BatchRenorm) -> None:
        super().__init__(num_features, momentum=choice.momentum)
        self.choice, self.leads_back = choice, True

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        running = Running(self.running_mean, self.running_var)
        found = self.normal(input, running, self.num_batches_tracked)
        if self.training:
            self.num_batches_tracked.add_(1)
        scale, shift = (beside(value, input) for value in (self.weight, self.bias))
        return torch.addcmul(shift, found, scale).to(input.dtype)

    def normal(self, x: Tensor, running: Running, steps: Tensor) -> Tensor:
        """``x`` [B, C, …] normalised, without scale and shift.

        Args:
            steps: that were taken before; one number, or one for each channel.
        """
        x = x.float() if x.dtype.itemsize < 4 else x
        if not self.training:
            return F.batch_norm(x, running.mean_C, running.variance_C, eps=self.eps)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        variance_C, mean_C = torch.var_mean(x, dim=axes, correction=0)
        found = (x - beside(mean_C, x)) * beside((variance_C + self.eps).rsqrt(), x)
        if self.leads_back:
            r_C, d_C = self._corrections(mean_C.detach(), variance_C.detach(), running, steps)
            found = found * beside(r_C, x) + beside(d_C, x)
        self._track(running, mean_C.detach(), variance_C.detach(), count=x.numel() // x.shape[1])
        return found

    def _corrections(
        self, mean_C: Tensor, variance_C: Tensor, running: Running, steps: Tensor
    ) -> tuple[Tensor, Tensor]:
        r_max, d_max = (bound.to(mean_C.dtype) for bound in self.bounds(steps))
        deviation_C = (running.variance_C + self.eps).sqrt()
        r_C = (variance_C + self.eps).sqrt() / deviation_C
        d_C = (mean_C - running.mean_C) / deviation_C
        return r_C.clamp(1 / r_max, r_max), d_C.clamp(-d_max, d_max)

    def bounds(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """R and D after so many steps: 1 and 0 up to ``warmup``, then linearly to the choice's own."""
        risen = (self._risen(steps, end) for end in (self.choice.r_steps, self.choice.d_steps))
        r_share, d_share = risen
        return 1 + (self.choice.r_max - 1) * r_share, self.choice.d_max * d_share

    def _risen(self, steps: Tensor, end: int) -> Tensor:
        start = self.choice.warmup
        if end <= start:
            return (steps >= start).double()
        return ((steps.double() - start) / (end - start)).clamp(0, 1)

    def _track(self, running: Running, mean_C: Tensor, variance_C: Tensor, *, count: int) -> None:
        assert self.momentum is not None
        unbiased_C = variance_C * (count / (count - 1))
        for average_C, newest_C in ((running.mean_C, mean_C), (running.variance_C, unbiased_C)):
            average_C.mul_(1 - self.momentum).add_(newest_C.to(average_C), alpha=self.momentum)


def beside(value_C: Tensor, x: Tensor) -> Tensor:
    """A value per channel, to broadcast over ``x`` [B, C, …]."""
    return value_C.view(-1, *[1] * (x.dim() - 2))
