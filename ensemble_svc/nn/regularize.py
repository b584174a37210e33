"""Which parameters a penalty on the weights concerns."""

from __future__ import annotations

from torch import nn

NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


def penalised(module: nn.Module) -> tuple[str, ...]:
    """Names of the trained weights of linear and convolutional layers, in the module's order.

    A weight has two dimensions or more, belongs to no normalisation and is not called bias; so the
    layers of the user's own count too.
    """
    return tuple(
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.dim() >= 2 and not _is_bias_or_norm(module, name)
    )


def _is_bias_or_norm(module: nn.Module, name: str) -> bool:
    owner, _, last = name.rpartition(".")
    return "bias" in last or isinstance(module.get_submodule(owner), NORMS)
