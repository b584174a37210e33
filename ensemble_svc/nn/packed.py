"""K members of the zoo at once, written out layer by layer on stacked weights.

``torch.func.vmap`` does the same for any network, at some 20 µs per operation. Here matrices are multiplied
in one batched product, what has no weights sees all rows as one batch, and K convolutions are one grouped
convolution.

On a CPU convolutions lose that way: the activations of one member fit its caches and those of K do not.
Ten LeNet-5 on batches of 256 took 222 ms layer by layer, however they were convolved, and 146 ms member by
member (two cores). ``goes_in_turn`` tells which networks those are.

Law: each slice is the member alone, to round-off. Shapes: K members, B rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ensemble_svc.nn.layers import MaxOut, ZooNet
from ensemble_svc.nn.noise import Draw
from ensemble_svc.nn.renorm import BatchRenorm, Running, beside
from ensemble_svc.nn.resnet import Residual
from ensemble_svc.nn.scalars import Scale, Shift
from ensemble_svc.nn.tied import Repeated
from ensemble_svc.nn.weightnorm import WeightNormConv, WeightNormLinear, of_length

BatchNorm = nn.modules.batchnorm._BatchNorm
ROWWISE = (nn.MaxPool2d, nn.AdaptiveAvgPool2d, MaxOut)


def is_known(net: nn.Module) -> bool:
    """Whether ``forward`` can write the network out.

    What a user's own module does between its layers, in its hooks or with its randomness cannot be seen.
    """
    return isinstance(net, ZooNet)


def goes_in_turn(net: nn.Module, device: torch.device) -> bool:
    """Whether members of a pack should go through ``net`` one after another."""
    return device.type == "cpu" and has_convolutions(net)


def has_convolutions(net: nn.Module) -> bool:
    """Whether some layer is a convolution."""
    return any(isinstance(module, nn.modules.conv._ConvNd) for module in net.modules())


def forward(net: nn.Module, weights_K: Mapping[str, Tensor], x_KB: Tensor) -> Tensor:
    """The outputs [K, B, O] of K members, each on its own rows.

    Batch norms in training mode update the running statistics in ``weights_K``.

    Args:
        net: of the zoo, or a part of one; its own weights do not matter, its mode does.
        weights_K: parameters and buffers of ``net`` by name, stacked.
    """
    return _through(net, weights_K, "", x_KB)


def _through(module: nn.Module, weights: Mapping[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    match module:
        case nn.Sequential():
            for name, child in module._modules.items():  # named_children() gives a module once
                assert child is not None
                x = _through(child, weights, f"{prefix}{name}.", x)
            return x
        case Residual() | Repeated():
            return module.by(
                lambda part, x: _through(module.get_submodule(part), weights, f"{prefix}{part}.", x), x
            )
        case WeightNormLinear() | WeightNormConv():
            weight_K = of_length(weights[f"{prefix}weight"], weights[f"{prefix}gain"])
            own = {f"{prefix}weight": weight_K, f"{prefix}bias": weights[f"{prefix}bias"]}
            return _conv(module, own, prefix, x) if isinstance(module, nn.Conv2d) else _linear(own, prefix, x)
        case nn.Linear():
            return _linear(weights, prefix, x)
        case nn.Conv2d():
            return _conv(module, weights, prefix, x)
        case BatchRenorm():
            return _batch_renorm(module, weights, prefix, x)
        case BatchNorm():
            return _batch_norm(module, weights, prefix, x)
        case nn.LayerNorm():
            normed = F.layer_norm(x, module.normalized_shape, eps=module.eps)
            return _scaled(normed, weights, prefix, x.dim() - 2 - len(module.normalized_shape))
        case nn.GroupNorm():
            normed = F.group_norm(x.flatten(0, 1), module.num_groups, eps=module.eps)
            return _scaled(normed.unflatten(0, x.shape[:2]), weights, prefix, 0)
        case Shift():
            return x + _along(weights[f"{prefix}bias"], x)
        case Scale():
            return x * _along(weights[f"{prefix}scale"], x)
        case Draw():
            return module.at(_along(weights[f"{prefix}{module.strength_name}"], x), x)
        case nn.PReLU():
            slope = _beside(weights[f"{prefix}weight"], x, 0)
            return torch.where(x > 0, x, slope * x)
        case nn.Flatten():
            return x.flatten(2)
        case _ if isinstance(module, ROWWISE):
            rows: Tensor = module(x.flatten(0, 1))
            return rows.unflatten(0, x.shape[:2])
        case _:
            found: Tensor = module(x)
            return found


def _linear(weights: Mapping[str, Tensor], prefix: str, x_KBI: Tensor) -> Tensor:
    matrix_KIO = weights[f"{prefix}weight"].transpose(1, 2)
    bias_KO = weights.get(f"{prefix}bias")
    if bias_KO is None:
        return torch.bmm(x_KBI, matrix_KIO)
    return torch.baddbmm(bias_KO.unsqueeze(1), x_KBI, matrix_KIO)


def _conv(module: nn.Conv2d, weights: Mapping[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    weight_K, bias_K = weights[f"{prefix}weight"], weights.get(f"{prefix}bias")

    side_by_side, bias = x.transpose(0, 1).flatten(1, 2), None if bias_K is None else bias_K.flatten(0, 1)
    found = F.conv2d(
        side_by_side,
        weight_K.flatten(0, 1),
        bias,
        module.stride,
        module.padding,  # type: ignore[arg-type]
        module.dilation,
        len(x) * module.groups,
    )
    return found.unflatten(1, (len(x), -1)).transpose(0, 1)


def _batch_norm(module: BatchNorm, weights: Mapping[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    """Members' channels side by side as channels of one norm."""
    mean_KC, variance_KC = weights[f"{prefix}running_mean"], weights[f"{prefix}running_var"]
    affine = weights.get(f"{prefix}weight"), weights.get(f"{prefix}bias")
    if module.training:
        weights[f"{prefix}num_batches_tracked"].add_(1)
    scale, shift = (value.flatten() if value is not None else None for value in affine)
    normed = F.batch_norm(
        x.transpose(0, 1).flatten(1, 2),
        mean_KC.view(-1),
        variance_KC.view(-1),
        scale,
        shift,
        module.training,
        module.momentum or 0.0,
        module.eps,
    )
    return normed.unflatten(1, (len(x), -1)).transpose(0, 1)


def _batch_renorm(module: BatchRenorm, weights: Mapping[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    """The same, with a count of steps for each member."""
    mean_KC, variance_KC, steps_K, scale_KC, shift_KC = (
        weights[f"{prefix}{name}"]
        for name in ("running_mean", "running_var", "num_batches_tracked", "weight", "bias")
    )
    side_by_side, num_channels = x.transpose(0, 1).flatten(1, 2), mean_KC.shape[1]
    running = Running(mean_KC.view(-1), variance_KC.view(-1))
    normed = module.normal(side_by_side, running, steps_K.repeat_interleave(num_channels))
    if module.training:
        steps_K.add_(1)
    scale, shift = (beside(value_KC.flatten(), normed) for value_KC in (scale_KC, shift_KC))
    found = torch.addcmul(shift, normed, scale).to(x.dtype)
    return found.unflatten(1, (len(x), -1)).transpose(0, 1)


def _scaled(x: Tensor, weights: Mapping[str, Tensor], prefix: str, middle: int) -> Tensor:
    """``x`` [K, B, …] times each member's scale and plus its shift, which lie behind ``middle`` dimensions."""
    if f"{prefix}weight" not in weights:
        return x
    scale, shift = (_beside(weights[f"{prefix}{name}"], x, middle) for name in ("weight", "bias"))
    return torch.addcmul(shift, x, scale)


def _beside(value_K: Tensor, x: Tensor, middle: int) -> Tensor:
    """[K, C…] as [K, 1, 1…, C…, 1…], to broadcast over ``x``."""
    behind = x.dim() - 2 - middle - (value_K.dim() - 1)
    return value_K.reshape(len(value_K), *[1] * (1 + middle), *value_K.shape[1:], *[1] * behind)


def _along(strength_K: Tensor, x: Tensor) -> Tensor:
    return strength_K.view(-1, *[1] * (x.dim() - 1))
