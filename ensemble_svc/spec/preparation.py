"""Rules between the keys of the data section, and what they ask of the network."""

from __future__ import annotations

from collections.abc import Iterator

from ensemble_svc.spec.augment import Erase
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.data import DataSpec
from ensemble_svc.spec.model import ConvNet, LeNet, Model, ResNet
from ensemble_svc.spec.preprocess import Decorrelate, Impute, PerChannelCenter, Preprocess, Whiten

Broken = tuple[tuple[KeyPath, ...], str]
"""The keys that contradict each other, and why."""


def flattens(step: Preprocess) -> bool:
    """Whether an image that goes through the step is no image any more."""
    return isinstance(step, Decorrelate) or (isinstance(step, Whiten) and step.method == "pca")


def broken_steps(data: DataSpec, model: Model) -> Iterator[Broken]:
    """Steps that limit themselves twice, that come too late, or that leave the network no images."""
    steps = list(enumerate(data.preprocess))
    for index, step in steps:
        key: KeyPath = ("data", "preprocess", index)
        before = data.preprocess[:index]
        if isinstance(step, Decorrelate) and None not in (step.components, step.variance):
            words = f"{step.components} and variance {step.variance} both limit the axes; give one of them"
            yield ((*key, "components"), (*key, "variance")), words
        mixed = next((s.name for s in before if isinstance(s, Decorrelate | Whiten)), None)
        if isinstance(step, Impute) and mixed:
            yield (key,), f"'impute' comes too late: '{mixed}' mixes the columns, gaps and all; put it first"
        if isinstance(step, PerChannelCenter) and any(flattens(s) for s in before):
            yield (key,), "'per_channel_center' finds no channels: a step before it flattens; put it first"
        if isinstance(model, LeNet | ConvNet | ResNet) and flattens(step):
            words = f"'{step.name}' flattens images, and the model '{model.name}' reads images"
            yield (key, ("model",)), f"{words}; use whiten with method: zca, or the model mlp"


def broken_changes(data: DataSpec) -> Iterator[Broken]:
    """Changes of images whose smallest value is above their largest."""
    for index, change in enumerate(data.augment):
        if isinstance(change, Erase):
            for option, (low, high) in (("area", change.area), ("ratio", change.ratio)):
                if low > high:
                    words = f"[{low:g}, {high:g}] begins above its end; write [{high:g}, {low:g}]"
                    yield (("data", "augment", index, option),), words
