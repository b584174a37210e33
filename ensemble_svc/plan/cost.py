"""What a member costs, by formula: the numbers of its network, its memory, and a first guess of its seconds.

Pure arithmetic over the specification and the shape of the data; loads no torch. The networks of the
zoo are counted layer by layer as ``nn/`` builds them (a test holds the two equal). A network of the
user's own is unknown until it is measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import pairwise

from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.spec.activations import PRelu
from ensemble_svc.spec.inits import Fixup
from ensemble_svc.spec.losses import Mse
from ensemble_svc.spec.model import ConvNet, ImageNetwork, LeNet, Mlp, Model, Network, PythonModel, ResNet
from ensemble_svc.spec.norms import Normalisation, WeightNorm
from ensemble_svc.spec.optimizers import AdaGrad, Adam, AdamW, Muon, RmsProp, Sgd
from ensemble_svc.spec.training import TrainingSpec

NUMBER_BYTES = 4
"""float32."""


@dataclass(frozen=True)
class Size:
    """A network, or a part of one, in numbers; parts add up."""

    parameters: int = 0
    dense_products: int = 0
    """Multiply-adds of a forward pass per row in matrix products."""
    conv_products: int = 0
    """The same in convolutions."""
    activations: int = 0
    """Numbers that the operations put out per row."""
    operations: int = 0
    """Operations of a forward pass."""

    def __add__(self, other: Size) -> Size:
        return Size(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    @property
    def products(self) -> int:
        """Multiply-adds of a forward pass per row."""
        return self.dense_products + self.conv_products


@dataclass(frozen=True)
class DataShape:
    """What the planner must know of the data."""

    input_shape: tuple[int, ...]
    """One row as the network reads it."""
    num_answers: int
    """Classes, or targets; of several tasks all outputs."""
    num_rows: int
    """Rows of all splits together; they lie in the memory of every slot."""
    num_validation: int


@dataclass(frozen=True)
class Work:
    """What each member of one structure does and holds."""

    steps: float
    """Optimiser steps of one epoch; a smaller last batch counts by its rows."""
    epochs: int
    batch: int
    """Rows of a full step."""
    num_validation: int
    size: Size | None
    """Of the network; None where it is unknown."""
    member_bytes: int | None
    """Memory of a member in training; None where it is unknown."""
    step_bytes: int
    """What of it a member takes only while it is in a step: its activations; 0 where it is unknown."""
    data_bytes: int
    """The data as every slot holds them, once for all of its members."""
    stops_early: bool
    """Whether the number of epochs is an upper bound."""


def work_of(member: MemberSpec, num_rows: int, shape: DataShape) -> Work:
    """The work of a member.

    Args:
        num_rows: rows it trains on.
    """
    training = member.training
    num_outputs = shape.num_answers
    if member.task == "regression" and not isinstance(training.loss, Mse):
        num_outputs *= 2
    size = size_of(member.model, shape.input_shape, num_outputs)
    batch = min(training.rows_per_step(num_rows), num_rows)
    return Work(
        steps=num_steps(num_rows, training.rows_per_step(num_rows)),
        epochs=training.epochs,
        batch=batch,
        num_validation=shape.num_validation,
        size=size,
        member_bytes=member_bytes(size, training, batch, states=member.snapshots + member.num_draws)
        if size
        else None,
        step_bytes=NUMBER_BYTES * batch * size.activations if size else 0,
        data_bytes=NUMBER_BYTES * shape.num_rows * math.prod(shape.input_shape),
        stops_early=training.early_stopping is not None,
    )


def num_steps(num_rows: int, batch_size: int) -> float:
    """Steps of an epoch, the smaller last batch by its share; a last batch of one row is dropped."""
    full, rest = divmod(num_rows, batch_size)
    return full + (rest / batch_size if rest > 1 else 0.0) if full else 1.0


def member_bytes(size: Size, training: TrainingSpec, batch: int, *, states: int = 0) -> int:
    """Memory of one member in training: weights, gradients, optimiser state, averages, activations.

    Args:
        states: snapshots, or draws of SWAG, that are held until the member is sealed.
    """
    copies = 2 + optimizer_copies(training) + 1 + training.average.copies + states
    return NUMBER_BYTES * (copies * size.parameters + batch * size.activations)


def optimizer_copies(training: TrainingSpec) -> int:
    """Numbers that the optimiser keeps per parameter."""
    rule = training.optimizer
    match rule:
        case Adam() | AdamW() | Muon():  # at most: Muon keeps one of each hidden weight
            return 2
        case AdaGrad():
            return 1
        case RmsProp():
            return 2 if rule.momentum else 1
        case Sgd():
            return 1 if rule.momentum else 0


def size_of(model: Model, input_shape: tuple[int, ...], num_outputs: int) -> Size | None:
    """The network's size; None for a network of the user's own and for an input that does not fit."""
    try:
        layers = _layers(model, input_shape, num_outputs)
        return sum(layers, Size())
    except _Misfit:
        return None


class _Misfit(Exception):
    """No network of the zoo for this input; the error for the user comes where it is built."""


def _layers(model: Model, shape: tuple[int, ...], num_outputs: int) -> Iterator[Size]:
    match model:
        case Mlp():
            yield from _dense_stack((math.prod(shape), *model.hidden), num_outputs, model)
        case LeNet():
            yield from _lenet(model, _image(shape, 12), num_outputs)
        case ConvNet():
            yield from _convnet(model, _image(shape, 2 ** len(model.channels)), num_outputs)
        case ResNet():
            yield from _resnet(model, _image(shape, 1), num_outputs)
        case PythonModel():
            raise _Misfit


def _image(shape: tuple[int, ...], smallest: int) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape[1:]) < smallest:
        raise _Misfit
    return shape[0], shape[1], shape[2]


def _lenet(model: LeNet, image: tuple[int, int, int], num_outputs: int) -> Iterator[Size]:
    (num_in, *sides), (first, second) = image, model.channels
    yield _conv(num_in, first, model, kernel=5, area=math.prod(sides))
    sides = [side // 2 for side in sides]
    yield _passed(first * math.prod(sides))
    sides = [side - 4 for side in sides]
    yield _conv(first, second, model, kernel=5, area=math.prod(sides))
    area = math.prod(side // 2 for side in sides)
    yield _passed(second * area)
    yield from _dense_stack((second * area, *model.dense), num_outputs, model)


def _convnet(model: ConvNet, image: tuple[int, int, int], num_outputs: int) -> Iterator[Size]:
    num_in, height, width = image
    for num_out in model.channels:
        for n in (num_in, *[num_out] * (model.convs_per_stage - 1)):
            yield _conv(n, num_out, model, kernel=3, area=height * width)
        height, width, num_in = height // 2, width // 2, num_out
        yield _passed(num_out * height * width)
    yield from _dense_stack((num_in * height * width, *model.dense), num_outputs, model)


def _resnet(model: ResNet, image: tuple[int, int, int], num_outputs: int) -> Iterator[Size]:
    num_channels, height, width = image
    plain = model.model_copy(update={"dropout": 0.0, "channel_dropout": 0.0})
    yield _conv(num_channels, model.width, plain, kernel=3, area=height * width)
    num_in = model.width
    for stage in range(3):
        num_out = model.width * 2**stage
        for block in range((model.depth - 2) // 6):
            entering = num_in * height * width
            if stage and not block:
                height, width = -(-height // 2), -(-width // 2)
            yield _conv(num_in, num_out, model, kernel=3, area=height * width)
            yield _conv(num_out, num_out, plain, kernel=3, area=height * width)
            if isinstance(model.init, Fixup):
                yield _scalars(1, entering) + _scalars(2, num_out * height * width)
            yield _passed(num_out * height * width)
            num_in = num_out
    yield _passed(num_in)
    if isinstance(model.init, Fixup):
        yield _scalars(1, num_in)
    yield _linear(num_in, num_outputs)


def _scalars(count: int, num_numbers: int) -> Size:
    """Fixup's single learned numbers, each of which acts on so many."""
    return Size(count, activations=count * num_numbers, operations=count)


def _dense_stack(sizes: tuple[int, ...], num_outputs: int, network: Network) -> Iterator[Size]:
    pairs, tied = list(pairwise(sizes)), isinstance(network, Mlp) and network.tied
    for place, (num_in, num_out) in enumerate(pairs):
        norm, width = network.dense_norm, num_out * network.pieces
        linear = _linear(num_in, width, bias=network.has_bias(norm))
        layer = linear + _gains(width, network) + _after(num_out, 1, network, norm)
        again = tied and place > 1 and pairs[place - 1] == (num_in, num_out)
        yield replace(layer, parameters=0) if again else layer
    yield _linear(sizes[-1], num_outputs)


def _linear(num_in: int, num_out: int, *, bias: bool = True) -> Size:
    products = num_in * num_out
    return Size(products + num_out * bias, products, 0, num_out, 1)


def _conv(num_in: int, num_out: int, network: ImageNetwork, *, kernel: int, area: int) -> Size:
    """A convolution with all that follows it up to the next; ``area``: places of its output."""
    width = num_out * network.pieces
    weights = num_in * width * kernel**2
    bias = width * network.has_bias(network.norm)
    convolution = Size(weights + bias, 0, weights * area, width * area, 1)
    found = convolution + _gains(width, network) + _after(num_out, area, network, network.norm)
    if network.channel_dropout:
        found += _passed(num_out * area)
    return found + _scalars(1, width * area) if isinstance(network.init, Fixup) else found


def _gains(width: int, network: Network) -> Size:
    """Weight norm's lengths of so many units' weights."""
    return Size(width, operations=1) if isinstance(network.norm, WeightNorm) else Size()


def _after(num_units: int, area: int, network: Network, norm: Normalisation) -> Size:
    """Norm, activation, noise and dropout of a layer of so many units or channels over ``area`` places."""
    normed, width = norm.is_layer, num_units * (network.pieces if network.norm_place == "before" else 1)
    later = 1 + (network.dropout > 0) + (network.activation_noise > 0)
    learned = num_units * isinstance(network.activation, PRelu)
    return Size(
        parameters=2 * width * normed + learned,
        activations=(width * normed + num_units * later) * area,
        operations=later + normed,
    )


def _passed(num_numbers: int) -> Size:
    """An operation without weights: a pooling, a sum."""
    return Size(activations=num_numbers, operations=1)
