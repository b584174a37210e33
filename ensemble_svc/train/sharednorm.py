"""Batch norm over the rows of all processes, on any device (torch's own SyncBatchNorm needs GPUs).

Equals torch's batch norm of one process on the whole batch: outputs, gradients, running statistics.
Shapes: B rows, C channels, P processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ensemble_svc.errors import Fault, SpecError
from ensemble_svc.train.batchnorm import BatchNorm
from ensemble_svc.train.share import Share

KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextmanager
def synchronised(net: nn.Module, share: Share) -> Iterator[None]:
    """While the block lasts, batch norms of ``net`` in training take the statistics of the whole batch.

    Their weights and running statistics stay the same tensors under the same names.

    Raises:
        SpecError: a batch norm of the user's own making.
    """
    found = _norms(net) if share.processes > 1 else {}
    shared = {norm: SharedBatchNorm(norm, share) for norm in set(found.values())}
    _put(net, {name: shared[norm] for name, norm in found.items()})
    try:
        yield
    finally:
        _put(net, found)


class SharedBatchNorm(BatchNorm):
    """Stands in for ``norm``, whose parameters and buffers it uses."""

    def __init__(self, norm: BatchNorm, share: Share) -> None:
        super().__init__(0, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.num_features, self.share, self.training = norm.num_features, share, norm.training
        self._check_input_dim = norm._check_input_dim  # type: ignore[method-assign]
        for name, value in norm._parameters.items():
            self.register_parameter(name, value)
        for name, buffer in norm._buffers.items():
            self.register_buffer(name, buffer)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        normal, mean_C, variance_C, count = _Normalise.apply(input, self.eps, self.share.num_own > 0)
        if self.track_running_stats:
            self._track(mean_C, variance_C * (count / (count - 1)))
        if not self.affine:
            return cast(Tensor, normal)
        return cast(Tensor, normal * _on_channels(self.weight, input) + _on_channels(self.bias, input))

    @torch.no_grad()
    def _track(self, mean_C: Tensor, unbiased_C: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        newest = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C.to(self.running_mean), newest)
        self.running_var.lerp_(unbiased_C.to(self.running_var), newest)


class _Normalise(torch.autograd.Function):
    """``(x - mean) / sqrt(variance + eps)`` over the rows of all processes.

    A process whose rows do not count adds nothing to the statistics and sends no gradient through them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, counts: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean_C, variance_C, count = _moments(x.float() if x.dtype.itemsize < 4 else x, counts)
        inverse_C = (variance_C + eps).rsqrt()
        normal = ((x - _on_channels(mean_C, x)) * _on_channels(inverse_C, x)).to(x.dtype)
        ctx.counts = counts
        ctx.save_for_backward(normal, inverse_C, count)
        ctx.mark_non_differentiable(mean_C, variance_C, count)
        return normal, mean_C, variance_C, count

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        normal, inverse_C, count = ctx.saved_tensors
        sums_2C = torch.stack([_over_rows(grad), _over_rows(grad * normal)]).to(inverse_C.dtype)
        dist.all_reduce(sums_2C)
        if ctx.counts:
            along_1, along_normal = (_on_channels(mean_C, grad) for mean_C in sums_2C / count)
            grad = grad - along_1 - normal * along_normal
        return (grad * _on_channels(inverse_C, grad)).to(normal.dtype), None, None


def _moments(x: Tensor, counts: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and (biased) variance of each channel, and their count, over all processes (Chan et al. 1979)."""
    count = x.new_full((1,), x.numel() / x.shape[1] if counts else 0.0)
    variance_C, mean_C = torch.var_mean(x, dim=_rows(x), correction=0)
    own = torch.cat([count, mean_C, variance_C])
    each = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(each, own)
    count_P1, mean_PC, variance_PC = torch.stack(each).split([1, len(mean_C), len(mean_C)], dim=1)
    share_P1 = count_P1 / count_P1.sum()
    mean_C = (share_P1 * mean_PC).sum(0)
    variance_C = (share_P1 * (variance_PC + (mean_PC - mean_C).square())).sum(0)
    return mean_C, variance_C, count_P1.sum()


def _rows(x: Tensor) -> list[int]:
    return [dim for dim in range(x.dim()) if dim != 1]


def _over_rows(x: Tensor) -> Tensor:
    return x.sum(dim=_rows(x))


def _on_channels(value_C: Tensor, x: Tensor) -> Tensor:
    return value_C.view(1, -1, *[1] * (x.dim() - 2))


def _norms(net: nn.Module) -> dict[str, BatchNorm]:
    found = {
        name: module
        for name, module in net.named_modules(remove_duplicate=False)
        if isinstance(module, BatchNorm)
    }
    for name, norm in found.items():
        if type(norm) not in KINDS:
            words = f"a batch norm of its own ({type(norm).__name__} at {name}) cannot be shared by processes"
            raise SpecError([Fault("compute.processes_per_member", f"{words}; train each member in one")])
    return found


def _put(net: nn.Module, modules: dict[str, Any]) -> None:
    for name, module in modules.items():
        owner, _, last = name.rpartition(".")
        setattr(net.get_submodule(owner), last, module)
