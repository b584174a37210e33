"""Options of a network that do not go together, each with the key that is told and a sentence on why."""

from __future__ import annotations

from collections.abc import Iterator

from ensemble_svc.spec.activations import Maxout, PRelu
from ensemble_svc.spec.inits import Dirac, Fixup, Lsuv, Zeros
from ensemble_svc.spec.model import Mlp, Network, ResNet
from ensemble_svc.spec.norms import InstanceNorm, NoNorm, WeightNorm

Unfit = tuple[str, str]
"""A key of the model, and what is wrong with its value."""


def unfit(model: Network) -> Iterator[Unfit]:
    """Everything that does not go together in one network."""
    if isinstance(model.norm, InstanceNorm) and isinstance(model, Mlp):
        yield (
            "norm",
            "'instance' is over the places of an image, and the units of mlp have one; use layer or batch",
        )
    if isinstance(model, ResNet) and isinstance(model.activation, Maxout):
        words = (
            "'maxout' takes the largest of several units, and a residual sum is one; use another activation"
        )
        yield "activation", words
    if isinstance(model, Mlp) and model.tied and model.norm.sees_batch:
        yield (
            "norm",
            f"'{model.norm.name}' has running averages, which cannot be those of several tied layers; use layer",
        )
    yield from _inits(model)


def _inits(model: Network) -> Iterator[Unfit]:
    if isinstance(model.init, Fixup):
        if not isinstance(model, ResNet):
            yield "init", f"'fixup' is for the blocks of resnet, and {model.name} has none; use he"
        elif not isinstance(model.norm, NoNorm) or model.norm_place == "after":
            yield (
                "init",
                "'fixup' stands in place of a norm; use norm: none with norm_place: before, or init: he",
            )
    if isinstance(model.init, Lsuv) and isinstance(model, Mlp) and model.tied:
        yield (
            "init",
            "'lsuv' scales each layer by itself, and tied layers have one weight; use orthogonal or he",
        )
    name, silent = model.init.name, isinstance(model.init, Zeros | Dirac)
    if silent and isinstance(model.activation, Maxout):
        yield "init", f"'{name}' makes pieces of a maxout unit alike, and alike they stay; use he or xavier"
    if isinstance(model.init, Zeros) and isinstance(model.activation, PRelu):
        yield "init", "'zeros' shows prelu nothing but 0, so its slopes stay as they are; use he or xavier"
    if silent and isinstance(model.norm, WeightNorm):
        yield (
            "init",
            f"'{name}' makes weights of length 0, which weight norm can give no direction; use he or xavier",
        )
